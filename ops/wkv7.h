// The RWKV-7 recurrence. Per head, with state S [value i, key j] and decay w = exp(-e^(-1/2) * sigmoid(w_raw)):
//
//   u = S a;   S = S diag(w) + u b^T + v k^T;   y = S r          (u reads the old state, y the new one)
//
// r, w_raw, k, v, a, b, y [B, T, C], C = heads * N, 1 <= N <= 128, any T; state [B, heads, N, N], zeros where
// undefined. reset u8 [B, T], optional: 1 = the state is zero before step t (at t = 0 it beats a given state),
// and the gradient of the state stops there. f32, f64 (CPU), f32, bf16 (CUDA); the state, and all that happens
// inside, in f32 (f64 for f64). Gradients: all six inputs and the state, for gradients of y and of the final
// state. Saves the inputs and the states at chunk starts (every 16 steps on CUDA, every 32 on the CPU);
// backward runs a chunk again, keeps its states, and walks back over them. Nothing is ever divided by w.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

struct Wkv7Output {
  Variable y, state;
};

Wkv7Output wkv7(const Variable& r, const Variable& w, const Variable& k, const Variable& v, const Variable& a,
                const Variable& b, int64_t heads, const Variable& state = Variable(),
                const Tensor& reset = Tensor());

// What the code of both devices takes. state and reset may be undefined.
struct Wkv7Inputs {
  Tensor r, w, k, v, a, b, state, reset;
  int64_t heads = 0;
  int64_t batch() const { return r.size(0); }
  int64_t time() const { return r.size(1); }
  int64_t channels() const { return r.size(2); }
  int64_t head_size() const { return channels() / heads; }
};
struct Wkv7Gradients {
  Tensor r, w, k, v, a, b, state;  // undefined: not wanted
};

namespace cuda {
// With `keep`, forward allocates `starts`, the states at the starts of all chunks but the first.
MODRWKV_LAUNCHER void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, bool keep, Tensor& starts);
// dstate may be undefined: zeros.
MODRWKV_LAUNCHER void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy,
                                    const Tensor& dstate, Wkv7Gradients& d);
}  // namespace cuda

}  // namespace modrwkv
