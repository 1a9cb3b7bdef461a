"""Goldens of ops/cross_entropy, ops/mse, ops/adamw and ops/grad_norm."""
import torch
from common import Goldens, randn

g = Goldens()
labels = torch.tensor([3, -100, 0, 6, 2], dtype=torch.int32)
g.case("cross_entropy", lambda x, l: torch.nn.functional.cross_entropy(x, l.long(), ignore_index=-100).reshape(1),
       [randn(5, 7, seed=1, scale=3.0), labels])
g.case("mse", lambda x, y: torch.nn.functional.mse_loss(x, y).reshape(1), [randn(4, 9, seed=1), randn(4, 9, seed=2)], fixed=(1,))
g.case("mae", lambda x, y: torch.nn.functional.l1_loss(x, y).reshape(1), [randn(4, 9, seed=1), randn(4, 9, seed=2)], fixed=(1,))
mask = (randn(4, 9, seed=3) > 0).to(torch.uint8)
g.case("mse_masked", lambda x, y, m: (((x - y) ** 2) * m).sum().div(m.sum()).reshape(1),
       [randn(4, 9, seed=1), randn(4, 9, seed=2), mask], fixed=(1,))

# Ten steps of torch.optim.AdamW on three tensors of 64 elements with their own settings; clipped by their global norm.
parameters = [torch.nn.Parameter(randn(64, seed=20 + i)) for i in range(3)]
with torch.no_grad():
    parameters[2][5] = 0.0
optimizer = torch.optim.AdamW([
    {"params": [parameters[0]], "lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8},
    {"params": [parameters[1]], "lr": 1e-2, "weight_decay": 0.0, "eps": 1e-8},
    {"params": [parameters[2]], "lr": 2e-2, "weight_decay": 0.0, "eps": 1e-18}], betas=(0.9, 0.99))
g.put("adamw.start", torch.cat([p.detach() for p in parameters]))
gradients, norms, ema = [], [], torch.cat([p.detach() for p in parameters])
for step in range(10):
    for i, p in enumerate(parameters):
        p.grad = randn(64, seed=100 * step + i)
    parameters[2].grad[5] = 0.0  # never moves, not even with eps 1e-18
    gradients.append(torch.cat([p.grad.clone() for p in parameters]))
    norms.append(torch.nn.utils.clip_grad_norm_(parameters, 5.0))
    optimizer.step()
    ema = 0.9 * ema + 0.1 * torch.cat([p.detach() for p in parameters])
g.put("adamw.gradients", torch.stack(gradients))
g.put("adamw.norms", torch.stack(norms))
g.put("adamw.end", torch.cat([p.detach() for p in parameters]))
g.put("adamw.average", ema)
