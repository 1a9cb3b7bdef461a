"""Goldens of ops/conv1d. PyTorch has channels first: [B, C, T]."""
import torch
from common import Goldens, randn

g = Goldens()


def case(name, B, T, Cin, Cout, K, stride=1, left=0, right=0, dilation=1, bias=True):
    def fn(x, w, b=None):
        x = torch.nn.functional.pad(x.transpose(1, 2), (left, right))
        return torch.nn.functional.conv1d(x, w, b, stride=stride, dilation=dilation).transpose(1, 2)

    inputs = [randn(B, T, Cin, seed=1), randn(Cout, Cin, K, seed=2)] + ([randn(Cout, seed=3)] if bias else [])
    g.case(name, fn, inputs)


case("causal_dilated", 2, 9, 3, 5, 2, left=4, dilation=4)
case("stem", 2, 11, 4, 6, 3, stride=2, left=1, right=1)
case("compressor", 1, 13, 8, 8, 5, stride=4, left=3)
case("stride_beyond_kernel", 2, 10, 2, 3, 2, stride=3)
case("strided_dilated", 1, 17, 3, 2, 3, stride=2, left=3, right=2, dilation=3)
case("pointwise", 2, 5, 4, 3, 1)
case("pointwise_strided", 2, 5, 4, 3, 1, stride=2, left=1)
case("pointwise_every_second", 2, 5, 4, 3, 1, stride=2)
case("one_channel_in", 2, 8, 1, 4, 3, left=2)
case("one_channel_out", 2, 8, 3, 1, 4, right=1)
case("one_step_out", 1, 4, 2, 3, 4)
case("padding_beyond_input", 1, 1, 2, 3, 3, left=4, right=5)
case("no_bias", 2, 6, 3, 4, 2, left=1, bias=False)
