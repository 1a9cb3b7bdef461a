"""Goldens of ops/wkv7: the recurrence as a loop over time, differentiated by PyTorch."""
import math

import torch
from common import Goldens, randn


def wkv7(heads, r, w_raw, k, v, a, b, state=None, reset=None):
    B, T, C = r.shape
    N = C // heads
    r, w_raw, k, v, a, b = (x.reshape(B, T, heads, N) for x in (r, w_raw, k, v, a, b))
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(w_raw))
    S = torch.zeros(B, heads, N, N, dtype=r.dtype) if state is None else state
    ys = []
    for t in range(T):
        if reset is not None:
            S = S * (1 - reset[:, t].to(r.dtype))[:, None, None, None]
        u = (S * a[:, t, :, None, :]).sum(-1)
        S = S * w[:, t, :, None, :] + u[..., None] * b[:, t, :, None, :] + v[:, t, :, :, None] * k[:, t, :, None, :]
        ys.append((S * r[:, t, :, None, :]).sum(-1))
    return torch.stack(ys, 1).reshape(B, T, C), S


def inputs(B, T, H, N, seed):
    x = [randn(B, T, H * N, seed=seed + i) for i in range(4)]
    kk = torch.nn.functional.normalize(randn(B, T, H, N, seed=seed + 4), dim=-1).reshape(B, T, H * N)
    rate = torch.sigmoid(randn(B, T, H * N, seed=seed + 5))
    return [*x, -kk, kk * rate]


g = Goldens()
g.case("plain", lambda *x: wkv7(2, *x), inputs(2, 37, 2, 16, 1))
g.case("state", lambda *x: wkv7(2, *x), [*inputs(2, 37, 2, 16, 2), randn(2, 2, 16, 16, seed=9)])
g.case("head64", lambda *x: wkv7(1, *x), [*inputs(1, 20, 1, 64, 3), randn(1, 1, 64, 64, seed=10)])
reset = torch.zeros(2, 21, dtype=torch.uint8)
reset[0, 5] = reset[0, 16] = reset[1, 0] = reset[1, 20] = 1
g.case("reset", lambda *x: wkv7(2, *x), [*inputs(2, 21, 2, 8, 4), randn(2, 2, 8, 8, seed=11), reset])
