// The RWKV-7 recurrence. Per head, with state S [value i, key j] in fp32 and decay w = exp(-e^(-1/2) * sigmoid(w_raw)):
//
//   u = S a;   S = S diag(w) + u b^T + v k^T;   y = S r          (u reads the old state, y the new one)
//
// r, w_raw, k, v, a, b, y [B, T, C], C = heads * N; state [B, heads, N, N], f32 (f64 for f64), zeros where undefined.
// reset u8 [B, T], optional: 1 = the state is zero before step t (at t = 0 it beats a given state), and the gradient of the
// state stops there. f32, f64 (CPU), f32, bf16 (CUDA, N of 8, 16, 32 or 64).
// Gradients: all six inputs and the state, for gradients of y and of the final state. Saves the inputs and the states at every
// 16th step; backward runs each piece of 16 steps again and walks back over its states. Nothing is ever divided by w.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

struct Wkv7Output {
  Variable y, state;
};

Wkv7Output wkv7(const Variable& r, const Variable& w, const Variable& k, const Variable& v, const Variable& a,
                const Variable& b, int64_t heads, const Variable& state = Variable(), const Tensor& reset = Tensor());

constexpr int kWkv7Chunk = 16;

// What the kernels of both devices take. Undefined tensors are absent: state_in, reset, and starts when nothing is recorded.
struct Wkv7Inputs {
  Tensor r, w, k, v, a, b, state, reset;
  int64_t heads = 0;
  int64_t batch() const { return r.size(0); }
  int64_t time() const { return r.size(1); }
  int64_t head_size() const { return r.size(2) / heads; }
  int64_t chunks() const { return (time() + kWkv7Chunk - 1) / kWkv7Chunk; }
};
struct Wkv7Gradients {
  Tensor r, w, k, v, a, b, state;  // state undefined: not wanted
};

namespace cuda {
MODRWKV_LAUNCHER void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, Tensor& starts);
MODRWKV_LAUNCHER void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy, const Tensor& dstate,
                                    Wkv7Gradients& d);
}  // namespace cuda

}  // namespace modrwkv
