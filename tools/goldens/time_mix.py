"""Goldens of ops/token_shift, ops/value_residual, ops/time_mix_keys and ops/time_mix_output."""
import torch
from common import Goldens, randn

g = Goldens()


def shifted(x, previous, reset):
    first = torch.zeros_like(x[:, :1]) if previous is None else previous[:, None]
    before = torch.cat([first, x[:, :-1]], 1)
    return before if reset is None else before * (1 - reset.to(x.dtype))[:, :, None]


def token_shift(x, previous, mixes, reset=None):
    return [x + (shifted(x, previous, reset) - x) * m for m in mixes]


reset = torch.zeros(2, 5, dtype=torch.uint8)
reset[0, 0] = reset[0, 3] = reset[1, 4] = 1
x, previous = randn(2, 5, 12, seed=1), randn(2, 12, seed=2)
six = [randn(12, seed=10 + i) for i in range(6)]
g.case("shift6", lambda x, p, *m: token_shift(x, p, m), [x, previous, *six])
g.case("shift1_reset", lambda x, p, m, reset: token_shift(x, p, [m], reset), [x, previous, six[0], reset])

g.case("value_residual", lambda v, first, pre: v + (first - v) * torch.sigmoid(pre),
       [randn(2, 3, 8, seed=1), randn(2, 3, 8, seed=2), randn(2, 3, 8, seed=3)])


def keys(heads, k0, a_pre, k_k, k_a):
    a = torch.sigmoid(a_pre)
    z = (k0 * k_k).reshape(*k0.shape[:-1], heads, -1)
    kk = (z / z.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-12)).reshape(k0.shape)
    return k0 * (1 + (a - 1) * k_a), -kk, kk * a


g.case("keys", lambda *x: keys(2, *x), [randn(2, 5, 16, seed=1), randn(2, 5, 16, seed=2), randn(16, seed=3), randn(16, seed=4)])
g.case("keys64", lambda *x: keys(1, *x), [randn(1, 3, 64, seed=1), randn(1, 3, 64, seed=2), randn(64, seed=3), randn(64, seed=4)])


def output(y, r, k, v, gate, r_k, weight, bias):
    H, N = r_k.shape
    flat = torch.nn.functional.group_norm(y.reshape(-1, H * N), H, weight, bias, N * 1e-5).reshape(y.shape)
    heads = lambda t: t.reshape(*t.shape[:-1], H, N)
    bonus = (heads(r) * heads(k) * r_k).sum(-1, keepdim=True) * heads(v)
    return (flat + bonus.reshape(y.shape)) * gate


def output_inputs(B, T, H, N):
    return [randn(B, T, H * N, seed=i) for i in range(5)] + [randn(H, N, seed=6), randn(H * N, seed=7), randn(H * N, seed=8)]


g.case("output", output, output_inputs(2, 5, 2, 8))
g.case("output64", output, output_inputs(1, 3, 1, 64))
