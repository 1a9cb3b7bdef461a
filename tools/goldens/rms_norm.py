"""Goldens of tests/example/rms_norm."""
import torch
from common import Goldens, randn

g = Goldens()
for rows, n in ((3, 33), (1, 64)):
    g.case(f"{rows}x{n}", lambda x, n=n: torch.nn.functional.rms_norm(x, (n,), eps=1e-5), [randn(rows, n, seed=1) + 0.5])
