"""Goldens of ops/embedding."""
import torch
from common import Goldens, randn

g = Goldens()


def case(name, V, C, *shape):
    ids = torch.randint(0, V, shape, generator=torch.Generator().manual_seed(7), dtype=torch.int32)
    g.case(name, lambda w, i: torch.nn.functional.embedding(i.long(), w), [randn(V, C, seed=1), ids])


case("tokens", 9, 5, 2, 7)
case("one_axis", 4, 1, 11)
case("three_axes", 300, 3, 2, 2, 3)
