"""Goldens of ops/layer_norm."""
import torch
from common import Goldens, randn

g = Goldens()
for n, rows in ((33, 3), (1, 2), (64, 5)):
    g.case(f"layer_norm_{rows}x{n}", lambda x, w, b, n=n: torch.nn.functional.layer_norm(x, (n,), w, b, 1e-5),
           [randn(rows, n, seed=1) + 0.5, randn(n, seed=2), randn(n, seed=3)])
g.case("group_norm", lambda x, w, b: torch.nn.functional.group_norm(x.reshape(10, 24), 3, w, b, 6.4e-4).reshape(2, 5, 24),
       [randn(2, 5, 24, seed=4), randn(24, seed=5), randn(24, seed=6)])
