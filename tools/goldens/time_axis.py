"""Goldens of ops/time_axis."""
import torch
from common import Goldens, randn

g = Goldens()
g.case("concat", lambda *parts: torch.cat(parts, 1), [randn(2, t, 3, seed=t) for t in (2, 1, 4)])
g.case("concat_twice_the_same", lambda a, b: torch.cat([a, b, a], 1), [randn(2, 2, 3, seed=1), randn(2, 1, 3, seed=2)])
g.case("slice", lambda x: x[:, 2:5], [randn(3, 7, 2, seed=1)])
g.case("last", lambda x: x[:, 6:7], [randn(3, 7, 2, seed=1)])
