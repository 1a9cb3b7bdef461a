"""RWKV-7 ("x070", arXiv 2503.14456) in plain PyTorch: the reference of the golden files and of the reference training.

Loops over time, no cleverness, any float type (float64 for goldens). Parameters are a dict with the names and shapes of the
official checkpoints, except that block 0 has no att.v0, v1, v2 (they are never used).

  x = ln0(emb[token]);  for each block: x += time_mix(ln1(x)), x += channel_mix(ln2(x));  logits = head(ln_out(x))

Per head with state S [value, key] and, for each token, vectors r, k, v, a, b and decay w in (0.545, 1):
  u = S a;  S = S diag(w) + u b^T + v k^T;  y = S r
"""
import math

import torch

DECAY = math.exp(-0.5)
LORA = "wavg"  # the low-rank pairs X1 [C, D], X2 [D, C]


def layer_norm(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * weight + bias


def shift(x, prev, reset):
    """x [B,T,C] -> the row before each row; `prev` [B,C] stands before the first, zeros where reset [B,T] is 1."""
    before = torch.cat([prev[:, None], x[:, :-1]], 1)
    return before if reset is None else before * (1 - reset.to(x.dtype))[..., None]


def wkv7(r, w, k, v, a, b, S, reset):
    """r.. [B,T,H,N], S [B,H,N,N] -> y [B,T,H,N], last S."""
    ys = []
    for t in range(r.shape[1]):
        if reset is not None:
            S = S * (1 - reset[:, t].to(S.dtype))[:, None, None, None]
        u = (S * a[:, t, :, None, :]).sum(-1)
        S = (S * w[:, t, :, None, :] + u[..., None] * b[:, t, :, None, :]
             + v[:, t, :, :, None] * k[:, t, :, None, :])
        ys.append((S * r[:, t, :, None, :]).sum(-1))
    return torch.stack(ys, 1), S


def time_mix(p, layer, x, v_first, x_prev, S, reset=None):
    """x [B,T,C] after ln1 -> output, v_first, last S. `p`: the tensors of blocks.<layer>.att., short names."""
    B, T, C = x.shape
    H, N = p["r_k"].shape
    heads = lambda z: z.reshape(B, T, H, N)
    xx = shift(x, x_prev, reset) - x
    xr, xw, xk, xv, xa, xg = (x + xx * p["x_" + c].reshape(-1) for c in "rwkvag")
    r, k, v = xr @ p["receptance.weight"].T, xk @ p["key.weight"].T, xv @ p["value.weight"].T
    w = torch.exp(-DECAY * torch.sigmoid(p["w0"].reshape(-1) + torch.tanh(xw @ p["w1"]) @ p["w2"]))
    if layer == 0:
        v_first = v
    else:
        v = v + (v_first - v) * torch.sigmoid(p["v0"].reshape(-1) + (xv @ p["v1"]) @ p["v2"])
    a = torch.sigmoid(p["a0"].reshape(-1) + (xa @ p["a1"]) @ p["a2"])
    g = torch.sigmoid(xg @ p["g1"]) @ p["g2"]
    kk = heads(k * p["k_k"].reshape(-1))
    kk = kk / kk.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
    k = k * (1 + (a - 1) * p["k_a"].reshape(-1))
    r, w, k, v = heads(r), heads(w), heads(k), heads(v)
    y, S = wkv7(r, w, k, v, -kk, kk * heads(a), S, reset)
    mean = y.mean(-1, keepdim=True)
    y = (y - mean) / torch.sqrt(((y - mean) ** 2).mean(-1, keepdim=True) + N * 1e-5)
    y = y.reshape(B, T, C) * p["ln_x.weight"] + p["ln_x.bias"]
    y = y + ((r * k * p["r_k"]).sum(-1, keepdim=True) * v).reshape(B, T, C)
    return (y * g) @ p["output.weight"].T, v_first, S


def channel_mix(p, x, x_prev, reset=None):
    xk = x + (shift(x, x_prev, reset) - x) * p["x_k"].reshape(-1)
    return torch.relu(xk @ p["key.weight"].T) ** 2 @ p["value.weight"].T


def below(params, prefix):
    return {n[len(prefix):]: t for n, t in params.items() if n.startswith(prefix)}


def zero_state(params, batch):
    H, N = params["blocks.0.att.r_k"].shape
    like = params["blocks.0.att.r_k"]
    layers = 1 + max(int(n.split(".")[1]) for n in params if n.startswith("blocks."))
    zeros = lambda *size: torch.zeros(*size, dtype=like.dtype)
    return [{"att_x": zeros(batch, H * N), "S": zeros(batch, H, N, N), "ffn_x": zeros(batch, H * N)} for _ in range(layers)]


def forward_embedded(params, x, state=None, reset=None):
    """x [B,T,C] before ln0 -> hidden [B,T,C] after ln_out, new state (a list of {att_x, S, ffn_x})."""
    state = state or zero_state(params, x.shape[0])
    x = layer_norm(x, params["blocks.0.ln0.weight"], params["blocks.0.ln0.bias"])
    v_first, last = None, []
    for layer, s in enumerate(state):
        q = below(params, f"blocks.{layer}.")
        xa = layer_norm(x, q["ln1.weight"], q["ln1.bias"])
        out, v_first, S = time_mix(below(q, "att."), layer, xa, v_first, s["att_x"], s["S"], reset)
        x = x + out
        xf = layer_norm(x, q["ln2.weight"], q["ln2.bias"])
        x = x + channel_mix(below(q, "ffn."), xf, s["ffn_x"], reset)
        last.append({"att_x": xa[:, -1], "S": S, "ffn_x": xf[:, -1]})
    return layer_norm(x, params["ln_out.weight"], params["ln_out.bias"]), last


def forward(params, tokens, state=None, reset=None):
    """tokens [B,T] -> logits [B,T,V], new state. reset [B,T] (optional): 1 where a new document starts."""
    hidden, last = forward_embedded(params, params["emb.weight"][tokens], state, reset)
    return hidden @ params["head.weight"].T, last


def initial(vocab, layers, width, head_size=64, ffn=None, ranks=None, seed=0):
    """The official trainer's initialisation, float64. ranks: {"w": .., "a": .., "v": .., "g": ..}; vocab 0: no emb, no head."""
    gen = torch.Generator().manual_seed(seed)

    def orthogonal(rows, cols, gain):
        m = torch.empty(rows, cols, dtype=torch.float64)
        return torch.nn.init.orthogonal_(m, gain=gain, generator=gen)

    ones, zeros = (lambda *s: torch.ones(*s, dtype=torch.float64)), (lambda *s: torch.zeros(*s, dtype=torch.float64))
    rank_of = lambda x: max(32, 32 * round(x / 32))
    root = math.sqrt(width)
    ranks = ranks or {"w": rank_of(2.5 * root), "a": rank_of(2.5 * root), "v": rank_of(1.7 * root), "g": rank_of(5 * root)}
    ffn = ffn or 4 * width
    C, N = width, head_size
    n = torch.arange(C, dtype=torch.float64)
    ramp = n / (C - 1)
    zigzag = ((n % N) - (N - 1) / 2) / ((N - 1) / 2)
    zigzag = zigzag * zigzag.abs()
    row = lambda t: t.reshape(1, 1, C)
    p = {}
    if vocab:
        p["emb.weight"] = (torch.rand(vocab, C, generator=gen, dtype=torch.float64) * 2 - 1) * 1e-4
        p["head.weight"] = orthogonal(vocab, C, 0.5 * math.sqrt(vocab / C) if vocab > C else 0.5)
    norms = ["blocks.0.ln0", "ln_out"] + [f"blocks.{i}.ln{j}" for i in range(layers) for j in (1, 2)]
    for name in norms:
        p[name + ".weight"], p[name + ".bias"] = ones(C), zeros(C)
    for i in range(layers):
        up, down = (i / (layers - 1) if layers > 1 else 0.0), 1 - i / layers
        att, f = f"blocks.{i}.att.", f"blocks.{i}.ffn."
        for c, e in zip("rwkvag", (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)):
            p[att + "x_" + c] = row(1 - (n / C) ** (e * down))
        p[att + "w0"] = row(-6 + 6 * ramp ** (1 + up ** 0.3) + 0.5 + 2.5 * zigzag)
        p[att + "a0"] = row(-0.19 + 0.3 * zigzag + 0.4 * (ramp - 0.5))
        if i > 0:
            p[att + "v0"] = row(0.73 - 0.4 * (ramp - 0.5))
        for c in LORA:
            if c == "v" and i == 0:
                continue
            D = ranks[c]
            p[att + c + "1"] = zeros(C, D)
            p[att + c + "2"] = orthogonal(D, C, 0.1 * (math.sqrt(D / C) if D > C else 1.0))
        p[att + "k_k"] = row(0.71 - 0.1 * (ramp - 0.5))
        p[att + "k_a"] = row(1.02 * ones(C))
        p[att + "r_k"] = -0.04 * ones(C // N, N)
        for name, gain in (("receptance", 1.0), ("key", 0.1), ("value", 1.0)):
            p[att + name + ".weight"] = orthogonal(C, C, gain)
        p[att + "output.weight"] = zeros(C, C)
        p[att + "ln_x.weight"], p[att + "ln_x.bias"] = ones(C) * ((1 + i) / layers) ** 0.7, zeros(C)
        p[f + "x_k"] = row(1 - (n / C) ** (down ** 4))
        p[f + "key.weight"] = orthogonal(ffn, C, 1.0)
        p[f + "value.weight"] = zeros(C, ffn)
    return p


def stir(params, seed=1, scale=0.3):
    """The official values leave `output`, `ffn.value` and the first low-rank matrices at zero, so that most of the network
    is silent. Adds noise to every parameter, so that every path matters in a test. Values become float32-representable."""
    gen = torch.Generator().manual_seed(seed)
    stirred = {}
    for name in sorted(params):
        t = params[name]
        down = name.split(".")[-1] in ("w1", "a1", "v1", "g1")
        vector = t.dim() != 2 or name.endswith(("r_k", "emb.weight"))
        s = scale if vector else scale / math.sqrt(t.shape[0 if down else -1])
        stirred[name] = (t + s * torch.randn(t.shape, generator=gen, dtype=torch.float64)).float().double()
    return stirred
