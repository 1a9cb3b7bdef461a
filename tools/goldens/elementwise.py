"""Goldens of ops/elementwise."""
from common import Goldens, randn

g = Goldens()
g.case("add", lambda a, b: a + b, [randn(3, 5, seed=1), randn(3, 5, seed=2)])
g.case("mul", lambda a, b: a * b, [randn(3, 5, seed=1), randn(3, 5, seed=2)])
g.case("square_by_mul", lambda a: a * a, [randn(7, seed=1)])
g.case("scale", lambda a: -1.75 * a, [randn(3, 5, seed=1)])
