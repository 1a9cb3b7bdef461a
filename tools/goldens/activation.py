"""Goldens of ops/activation."""
import torch
from common import Goldens, randn

x = randn(3, 11, seed=1, scale=2)
g = Goldens()
g.case("relu", torch.relu, [x])
g.case("relu_squared", lambda x: torch.relu(x) ** 2, [x])
g.case("sigmoid", torch.sigmoid, [x])
g.case("tanh", torch.tanh, [x])
g.case("silu", torch.nn.functional.silu, [x])
g.case("gated_tanh", lambda f, s: torch.tanh(f) * torch.sigmoid(s), [x, randn(3, 11, seed=2, scale=2)])
