"""Golden of models/rwkv7: two layers, two heads of 16, four different low-rank sizes, every parameter stirred, states that
are not zero, gradients of the logits and of the final states.

  param.NAME (f32, exact)  state.I.{att_x,S,ffn_x}  tokens i32 [2,37]  dlogits  dstate_out.I.*
  logits  state_out.I.*  grad.NAME  grad_state.I.*
and the last line again as packed.* for the same inputs with documents that begin where `packed.reset` u8 [2,37] is 1.
"""
import os
import sys

import torch
from common import Goldens, randn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import reference_rwkv7 as rwkv7  # noqa: E402

B, T, V, C, N = 2, 37, 11, 32, 16
PARTS = ("att_x", "S", "ffn_x")

as_f32 = lambda t: t.float().double()
params = rwkv7.stir(rwkv7.initial(V, 2, C, N, ranks={"w": 8, "a": 4, "v": 12, "g": 16}, seed=1), seed=2)
states = [{k: as_f32(randn(*z.shape, seed=100 + 10 * i + j)) for j, (k, z) in enumerate(layer.items())}
          for i, layer in enumerate(rwkv7.zero_state(params, B))]
dstates = [{k: as_f32(randn(*z.shape, seed=200 + 10 * i + j)) for j, (k, z) in enumerate(layer.items())}
           for i, layer in enumerate(states)]
tokens = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(3))
dlogits = as_f32(randn(B, T, V, seed=4))
reset = torch.zeros(B, T, dtype=torch.uint8)
reset[0, 5] = reset[0, 16] = reset[0, 17] = reset[1, 0] = reset[1, 20] = reset[1, T - 1] = 1

g = Goldens()
for name, t in sorted(params.items()):
    g.put(f"param.{name}", t.float())
for what, all_layers in (("state", states), ("dstate_out", dstates)):
    for i, layer in enumerate(all_layers):
        for part in PARTS:
            g.put(f"{what}.{i}.{part}", layer[part])
g.put("tokens", tokens.int())
g.put("dlogits", dlogits)
g.put("packed.reset", reset)

for prefix, starts in (("", None), ("packed.", reset)):
    p = {n: t.clone().requires_grad_() for n, t in params.items()}
    s = [{k: t.clone().requires_grad_() for k, t in layer.items()} for layer in states]
    logits, last = rwkv7.forward(p, tokens, s, starts)
    total = (logits * dlogits).sum()
    for out, d in zip(last, dstates):
        total = total + sum((out[part] * d[part]).sum() for part in PARTS)
    total.backward()
    g.put(prefix + "logits", logits)
    for name in sorted(p):
        assert p[name].grad.abs().max() > 0, name
        g.put(f"{prefix}grad.{name}", p[name].grad)
    for i, layer in enumerate(s):
        for part in PARTS:
            g.put(f"{prefix}state_out.{i}.{part}", last[i][part])
            g.put(f"{prefix}grad_state.{i}.{part}", layer[part].grad)
