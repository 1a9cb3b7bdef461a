"""What the golden scripts share: run a function in float64 with PyTorch and store inputs, outputs and all gradients.

Each script tools/goldens/NAME.py writes tests/goldens/NAME.h5; run it from the checkout's root, with torch and h5py:
    python tools/goldens/layer_norm.py
Datasets are called CASE.in0.. CASE.out0.. CASE.dout0.. CASE.din0.. (see tests/op_test.h).
"""
import os
import sys
import zlib

import h5py
import numpy as np
import torch

torch.set_num_threads(1)


class Goldens:
    def __init__(self):
        self.name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        self.file = h5py.File(f"tests/goldens/{self.name}.h5", "w", libver=("earliest", "v110"))
        self.file.attrs["format"] = np.bytes_("modrwkv.golden")
        self.file.attrs["format_major"] = np.uint32(1)
        self.file.attrs["format_minor"] = np.uint32(0)

    def put(self, key, tensor):
        array = tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
        self.file.create_dataset(key, data=np.ascontiguousarray(array), track_times=False)

    def case(self, name, fn, inputs, fixed=(), no_dout=()):
        """inputs: tensors; float64 ones are differentiated unless their index is in `fixed`. Outputs in `no_dout` get none."""
        gen = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        leaves = []
        for i, t in enumerate(inputs):
            if t is None:
                leaves.append(None)
                continue
            t = t.clone()
            if t.dtype == torch.float64 and i not in fixed:
                t.requires_grad_()
            leaves.append(t)
        outs = fn(*leaves)
        outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
        total = 0
        for i, o in enumerate(outs):
            self.put(f"{name}.out{i}", o)
            if i not in no_dout and o.requires_grad:
                dout = torch.randn(o.shape, generator=gen, dtype=torch.float64)
                self.put(f"{name}.dout{i}", dout)
                total = total + (o * dout).sum()
        total.backward()
        for i, t in enumerate(leaves):
            if t is None:
                continue
            self.put(f"{name}.in{i}", t)
            if t.requires_grad:
                self.put(f"{name}.din{i}", t.grad if t.grad is not None else torch.zeros_like(t))


def randn(*shape, seed, scale=1.0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=gen, dtype=torch.float64) * scale
