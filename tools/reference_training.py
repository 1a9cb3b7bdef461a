"""Twenty steps of training in PyTorch float64, for the test that our own training takes the same steps.

A language model of 2 layers, width 128, 2 heads, on batches of a seeded Markov chain; cross entropy, clipping at 1.0, AdamW
with RWKV-7's parameter groups. Writes tests/goldens/training_l2d128.h5:
  param.NAME f32 (exact)   tokens i32 [20, 4, 33] (inputs 0..31, targets 1..32)   losses, grad_norms f64 [20]
  final.NAME f64 of every vector (norms, mixes, w0, ..) after the last step: a wrong group shows here first
and the hyper-parameters as attributes of the file. grad_norms are those before clipping. Run it from the checkout's root:
    python tools/reference_training.py
It trains a second time in float32 and prints how far rounding alone moves the losses.
"""
import h5py
import numpy as np
import torch

import reference_rwkv7 as rwkv7

VOCAB, LAYERS, WIDTH, HEAD, STEPS, BATCH, TIME = 64, 2, 128, 64, 20, 4, 32
LR, BETAS, EPS, DECAY, CLIP, W0_RATE = 2.0 ** -10, (0.9, 0.99), 1e-8, 0.1, 1.0, 2.0
SUCCESSORS = 3  # of each token
STIR = 0.1


def markov_batches(seed):
    """[STEPS, BATCH, TIME + 1] tokens: every token is followed by one of SUCCESSORS tokens with fixed random odds."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((VOCAB, VOCAB))
    for row in transition:
        row[rng.choice(VOCAB, SUCCESSORS, replace=False)] = rng.random(SUCCESSORS) + 0.1
    transition /= transition.sum(1, keepdims=True)
    tokens = np.zeros((STEPS, BATCH, TIME + 1), dtype=np.int32)
    for sequence in tokens.reshape(-1, TIME + 1):
        sequence[0] = rng.integers(VOCAB)
        for t in range(TIME):
            sequence[t + 1] = rng.choice(VOCAB, p=transition[sequence[t]])
    return torch.from_numpy(tokens)


def groups(params):
    """Matrices called .weight decay; att.w0 learns at W0_RATE times the rate; the rest neither."""
    w0 = [t for n, t in params.items() if n.endswith("att.w0")]
    matrices = [t for n, t in params.items() if n.endswith(".weight") and t.squeeze().dim() >= 2]
    taken = {id(t) for t in w0 + matrices}
    rest = [t for t in params.values() if id(t) not in taken]
    return [{"params": matrices, "lr": LR, "weight_decay": DECAY}, {"params": rest, "lr": LR, "weight_decay": 0.0},
            {"params": w0, "lr": LR * W0_RATE, "weight_decay": 0.0}]


def train(initial, tokens, dtype):
    params = {n: torch.tensor(t.numpy(), dtype=dtype, requires_grad=True) for n, t in initial.items()}
    optimizer = torch.optim.AdamW(groups(params), betas=BETAS, eps=EPS, foreach=False)
    losses, norms = [], []
    for batch in tokens.long():
        optimizer.zero_grad()
        logits, _ = rwkv7.forward(params, batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(params.values()), CLIP, foreach=False)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.array(losses), np.array(norms), {n: t.detach().double() for n, t in params.items()}


def main():
    torch.set_num_threads(1)
    initial = rwkv7.stir(rwkv7.initial(VOCAB, LAYERS, WIDTH, HEAD, seed=11), seed=12, scale=STIR)
    tokens = markov_batches(13)
    losses, norms, final = train(initial, tokens, torch.float64)
    rounded, rounded_norms, rounded_final = train(initial, tokens, torch.float32)
    vectors = [n for n in sorted(final) if final[n].squeeze().dim() < 2]
    moved = max(float((rounded_final[n] - final[n]).norm() / (final[n] - initial[n]).norm()) for n in vectors)
    print("losses", np.round(losses, 5))
    print("gradient norms", np.round(norms, 4))
    print(f"the loss falls by {100 * (1 - losses[-1] / losses[0]):.1f} %; float32 moves a loss by at most "
          f"{np.max(np.abs(rounded / losses - 1)):.1e}, a norm by {np.max(np.abs(rounded_norms / norms - 1)):.1e}, "
          f"the way a vector went by {moved:.1e}")
    with h5py.File("tests/goldens/training_l2d128.h5", "w", libver=("earliest", "v110")) as file:
        put = lambda name, array: file.create_dataset(name, data=np.ascontiguousarray(array), track_times=False)
        for name, t in sorted(initial.items()):
            put(f"param.{name}", t.float().numpy())
        for name in vectors:
            put(f"final.{name}", final[name].numpy())
        put("tokens", tokens.numpy())
        put("losses", losses)
        put("grad_norms", norms)
        file.attrs["format"] = np.bytes_("modrwkv.golden")
        file.attrs["format_major"] = np.uint32(1)
        file.attrs["format_minor"] = np.uint32(0)
        whole = {"vocab": VOCAB, "layers": LAYERS, "width": WIDTH, "head_size": HEAD, "steps": STEPS, "batch": BATCH, "time": TIME}
        for name, value in whole.items():
            file.attrs[name] = np.int64(value)
        real = {"lr": LR, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": DECAY, "clip": CLIP, "w0_rate": W0_RATE}
        for name, value in real.items():
            file.attrs[name] = np.float64(value)


if __name__ == "__main__":
    main()
