"""Goldens of ops/instance_norm."""
import torch
from common import Goldens, randn


def norm(x):
    mean, std = x.mean(1), torch.sqrt(x.var(1, unbiased=False) + 1e-5)
    return (x - mean[:, None]) / std[:, None], mean, std


g = Goldens()
x, mean, std = randn(4, 33, seed=1, scale=3) + 2, randn(4, seed=2), randn(4, seed=3).abs() + 0.5
g.case("norm", norm, [x])
g.case("only_y", lambda x: norm(x)[0], [x])
g.case("denormalise", lambda y, m, s: y * s[:, None] + m[:, None], [randn(4, 9, seed=4), mean, std])
g.case("normalise_with", lambda t, m, s: (t - m[:, None]) / s[:, None], [randn(4, 9, seed=5), mean, std], fixed=(1, 2))
