"""Goldens of ops/linear."""
from common import Goldens, randn

g = Goldens()
g.case("out_in", lambda x, w, b: x @ w.T + b, [randn(2, 3, 7, seed=1), randn(5, 7, seed=2), randn(5, seed=3)])
g.case("in_out", lambda x, w, b: x @ w + b, [randn(2, 3, 7, seed=1), randn(7, 5, seed=2), randn(5, seed=3)])
g.case("no_bias", lambda x, w: x @ w.T, [randn(4, 6, seed=1), randn(9, 6, seed=2)])
