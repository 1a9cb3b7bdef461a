// The RWKV-7 recurrence on the CPU: a thread owns a head of a sequence, its inner loops run along the keys.
#include "ops/wkv7.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "core/vmath.h"

namespace modrwkv {
namespace {

constexpr double kDecay = 0.6065306597126334;  // e^(-1/2)

namespace cpu {

// One head of one sequence: pointers to its first element; step t is C elements further.
// All heads together are worth a second thread from some ten million state updates on.
int64_t grain(const Wkv7Inputs& in) {
  const int64_t heads = in.batch() * in.heads;
  return heads * in.time() * in.head_size() * in.head_size() > (1 << 24) ? 0 : heads;
}

template <class T>
struct Head {
  const T *r, *w, *k, *v, *a, *b;
  const uint8_t* reset;  // may be null
  int64_t steps, stride, n;
  std::vector<T> decay;  // [steps, n]

  Head(const Wkv7Inputs& in, int64_t batch, int64_t head) : steps(in.time()), stride(in.r.size(2)), n(in.head_size()) {
    const int64_t at = batch * steps * stride + head * n;
    r = in.r.data<T>() + at;
    w = in.w.data<T>() + at;
    k = in.k.data<T>() + at;
    v = in.v.data<T>() + at;
    a = in.a.data<T>() + at;
    b = in.b.data<T>() + at;
    reset = in.reset.defined() ? in.reset.data<uint8_t>() + batch * steps : nullptr;
    decay.resize(size_t(steps * n));
    for (int64_t t = 0; t < steps; ++t) {
      for (int64_t j = 0; j < n; ++j) decay[size_t(t * n + j)] = vmath::exp(T(-kDecay) * vmath::sigmoid(w[t * stride + j]));
    }
  }

  // S -> S after step t; u [n] and y [n] (or null) are written.
  void advance(int64_t t, T* __restrict S, T* __restrict u, T* __restrict y) const {
    const T* __restrict pr = r + t * stride;
    const T* __restrict pk = k + t * stride;
    const T* __restrict pv = v + t * stride;
    const T* __restrict pa = a + t * stride;
    const T* __restrict pb = b + t * stride;
    const T* __restrict pw = decay.data() + t * n;
    for (int64_t i = 0; i < n; ++i) {
      T* __restrict row = S + i * n;
      T ui = 0, yi = 0;
      const T vi = pv[i];
      for (int64_t j = 0; j < n; ++j) ui += row[j] * pa[j];
      for (int64_t j = 0; j < n; ++j) {
        const T s = row[j] * pw[j] + ui * pb[j] + vi * pk[j];
        row[j] = s;
        yi += s * pr[j];
      }
      u[i] = ui;
      if (y) y[i] = yi;
    }
  }
};

void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, Tensor& starts) {
  const int64_t H = in.heads, N = in.head_size(), chunks = in.chunks();
  for_cpu_float("wkv7", in.r.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_for(in.batch() * H, grain(in), [&](int64_t begin, int64_t end) {
      std::vector<T> u(static_cast<size_t>(N));
      for (int64_t bh = begin; bh < end; ++bh) {
        const Head<T> head(in, bh / H, bh % H);
        T* S = state.data<T>() + bh * N * N;
        if (in.state.defined()) {
          std::copy_n(in.state.data<T>() + bh * N * N, N * N, S);
        } else {
          std::fill_n(S, N * N, T(0));
        }
        T* out = y.data<T>() + bh / H * head.steps * head.stride + bh % H * N;
        for (int64_t t = 0; t < head.steps; ++t) {
          if (head.reset && head.reset[t]) std::fill_n(S, N * N, T(0));
          if (starts.defined() && t % kWkv7Chunk == 0) {
            std::copy_n(S, N * N, starts.data<T>() + (bh * chunks + t / kWkv7Chunk) * N * N);
          }
          head.advance(t, S, u.data(), out + t * head.stride);
        }
      }
    });
  });
}

// With G = dL/dS after step t, S' the state before it and S the one after:
//   dr = S^T dy;  G += dy r^T;  dw = sum_i G S';  dk = G^T v;  dv = G k;  db = G^T u;  du = G b;  da = S'^T du;
//   G = G diag(w) + du a^T
void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy, const Tensor& dstate, Wkv7Gradients& d) {
  const int64_t H = in.heads, N = in.head_size(), chunks = in.chunks();
  for_cpu_float("wkv7", in.r.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_for(in.batch() * H, grain(in), [&](int64_t begin, int64_t end) {
      std::vector<T> states(size_t((kWkv7Chunk + 1) * N * N)), us(size_t(kWkv7Chunk * N)), G(size_t(N * N));
      for (int64_t bh = begin; bh < end; ++bh) {
        const Head<T> head(in, bh / H, bh % H);
        const int64_t at = bh / H * head.steps * head.stride + bh % H * N;
        std::copy_n(dstate.data<T>() + bh * N * N, N * N, G.data());
        for (int64_t c = chunks - 1; c >= 0; --c) {
          const int64_t first = c * kWkv7Chunk, last = std::min(first + kWkv7Chunk, head.steps);
          // states[i] is the state before step first + i; a reset inside the piece zeroes it once more.
          std::copy_n(starts.data<T>() + (bh * chunks + c) * N * N, N * N, states.data());
          for (int64_t t = first; t < last; ++t) {
            T* S = states.data() + (t - first) * N * N;
            if (head.reset && head.reset[t]) std::fill_n(S, N * N, T(0));
            std::copy_n(S, N * N, S + N * N);
            head.advance(t, S + N * N, us.data() + (t - first) * N, static_cast<T*>(nullptr));
          }
          for (int64_t t = last - 1; t >= first; --t) {
            const int64_t x = t * head.stride;
            const T* __restrict before = states.data() + (t - first) * N * N;
            // The state after step t; states[t - first + 1] may have been zeroed by a reset, so it is built from `before`.
            const T* __restrict u = us.data() + (t - first) * N;
            const T* __restrict w = head.decay.data() + t * N;
            const T *__restrict r = head.r + x, *__restrict k = head.k + x, *__restrict v = head.v + x;
            const T *__restrict a = head.a + x, *__restrict b = head.b + x, *__restrict g = dy.data<T>() + at + x;
            T *__restrict dr = d.r.data<T>() + at + x, *__restrict dw = d.w.data<T>() + at + x;
            T *__restrict dk = d.k.data<T>() + at + x, *__restrict dv = d.v.data<T>() + at + x;
            T *__restrict da = d.a.data<T>() + at + x, *__restrict db = d.b.data<T>() + at + x;
            for (T* p : {dr, dw, dk, da, db}) std::fill_n(p, N, T(0));
            for (int64_t i = 0; i < N; ++i) {
              T* __restrict row = G.data() + i * N;
              const T* __restrict s = before + i * N;
              const T gi = g[i], vi = v[i], ui = u[i];
              T dvi = 0, dui = 0;
              for (int64_t j = 0; j < N; ++j) {
                const T q = row[j] + gi * r[j];
                row[j] = q;
                dvi += q * k[j];
                dui += q * b[j];
              }
              dv[i] = dvi;
              for (int64_t j = 0; j < N; ++j) {
                const T q = row[j];
                dr[j] += (s[j] * w[j] + ui * b[j] + vi * k[j]) * gi;
                dw[j] += q * s[j];
                dk[j] += q * vi;
                db[j] += q * ui;
                da[j] += s[j] * dui;
                row[j] = q * w[j] + dui * a[j];
              }
            }
            for (int64_t j = 0; j < N; ++j) {  // through w = exp(-e^(-1/2) sigmoid(w_raw))
              const T sigma = vmath::sigmoid(head.w[x + j]);
              dw[j] *= T(-kDecay) * w[j] * sigma * (1 - sigma);
            }
            if (head.reset && head.reset[t]) std::fill(G.begin(), G.end(), T(0));
          }
        }
        if (d.state.defined()) std::copy_n(G.data(), N * N, d.state.data<T>() + bh * N * N);
      }
    });
  });
}

}  // namespace cpu

void check(const Wkv7Inputs& in) {
  const Tensor& r = in.r;
  require(r.rank() == 3 && in.heads > 0 && r.size(2) % in.heads == 0, "wkv7: r is {}, expected [B, T, C] with C in {} heads", r.str(),
          in.heads);
  const char* names[] = {"w", "k", "v", "a", "b"};
  const Tensor* others[] = {&in.w, &in.k, &in.v, &in.a, &in.b};
  for (int i = 0; i < 5; ++i) {
    require(others[i]->shape() == r.shape() && others[i]->dtype() == r.dtype() && others[i]->device() == r.device(),
            "wkv7: {} is {}, r is {}", names[i], others[i]->str(), r.str());
  }
  const int64_t N = in.head_size();
  const DType state_type = r.dtype() == DType::bf16 ? DType::f32 : r.dtype();
  require(!in.state.defined() || (in.state.shape() == Shape{r.size(0), in.heads, N, N} && in.state.dtype() == state_type &&
                                  in.state.device() == r.device()),
          "wkv7: state is {}, expected {} {}", in.state.str(), name_of(state_type), Shape({r.size(0), in.heads, N, N}).str());
  require(!in.reset.defined() ||
              (in.reset.shape() == Shape{r.size(0), r.size(1)} && in.reset.dtype() == DType::u8 && in.reset.device() == r.device()),
          "wkv7: reset is {}, expected u8 {}", in.reset.str(), Shape({r.size(0), r.size(1)}).str());
  require(!r.device().is_cuda() || N == 8 || N == 16 || N == 32 || N == 64, "wkv7: head size {} on CUDA, expected 8, 16, 32 or 64", N);
}

}  // namespace

Wkv7Output wkv7(const Variable& r, const Variable& w, const Variable& k, const Variable& v, const Variable& a, const Variable& b,
                int64_t heads, const Variable& state, const Tensor& reset) {
  const Wkv7Inputs in{r.value(), w.value(), k.value(), v.value(), a.value(), b.value(), state.defined() ? state.value() : Tensor(), reset, heads};
  check(in);
  const std::vector<Variable> inputs = {r, w, k, v, a, b, state};
  const int64_t B = in.batch(), N = in.head_size();
  const DType state_type = r.dtype() == DType::bf16 ? DType::f32 : r.dtype();
  Tensor y = Tensor::empty_like(in.r), last = Tensor::empty({B, heads, N, N}, state_type, r.device()), starts;
  if (will_record(inputs)) starts = Tensor::empty({B * heads, in.chunks(), N, N}, state_type, r.device());
  run(r.device(), cpu::wkv7_forward, cuda::wkv7_forward, in, y, last, starts);
  const std::vector<Variable> out = record("wkv7", {y, last}, inputs, [in, starts](Grads& g) {
    Wkv7Gradients d;
    Tensor* all[] = {&d.r, &d.w, &d.k, &d.v, &d.a, &d.b};
    for (int i = 0; i < 6; ++i) *all[i] = g.wants(i) ? g.write(i) : Tensor::empty_like(in.r);
    if (g.wants(6)) d.state = g.write(6);
    run(in.r.device(), cpu::wkv7_backward, cuda::wkv7_backward, in, starts, g.out(0), g.out(1), d);
  });
  return {out[0], out[1]};
}

}  // namespace modrwkv
