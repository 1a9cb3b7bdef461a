// The RWKV-7 recurrence on the CPU, its checks and the tape. A thread owns a head of a sequence.
#include "ops/wkv7.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "core/vmath.h"

namespace modrwkv {
namespace {

namespace cpu {

constexpr int kChunk = 32;  // steps between two saved states: its states of kRows rows stay in the L2 cache
constexpr int kRows = 16;   // value rows that backward treats together
constexpr int kUnroll = 4;  // rows of one pass over the keys: each vector is loaded once for all of them

int64_t chunks(int64_t steps) { return (steps + kChunk - 1) / kChunk; }

// Zeros at a cache line's start: a vector register's load then touches one line.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : size_(size), lines_(size_t(size) * sizeof(T) / sizeof(Line) + 1) {}
  T* data() { return reinterpret_cast<T*>(lines_.data()); }
  void clear() { std::fill_n(data(), size_, T(0)); }

 private:
  struct alignas(64) Line {
    T elements[64 / sizeof(T)] = {};
  };
  int64_t size_;
  std::vector<Line> lines_;
};

// w = exp(-e^(-1/2) s), s = sigmoid(raw); dw/draw = -e^(-1/2) w s (1 - s) where wanted. No difference cancels.
template <class T>
void decay(const T* __restrict raw, int64_t n, T* __restrict w, T* __restrict slope) {
  const T c = T(0.6065306597126334);
  for (int64_t j = 0; j < n; ++j) {
    const T e = vmath::exp(-std::abs(raw[j]));
    const T p = T(1) / (T(1) + e), q = e * p;  // sigmoid of |raw| and of -|raw|
    w[j] = vmath::exp(-c * (raw[j] < 0 ? q : p));
    if (slope) slope[j] = -c * w[j] * p * q;
  }
}

// ---------------------------------------------------------------- forward

// State rows are independent. A group of W rows is kept transposed, S[j][l] = state[row + l][key j], so that
// every sum over the keys is a plain loop over j with the rows in vector lanes. Rows beyond n hold zeros.

template <int W, class T>
void read_rows(const T* state, int64_t n, int64_t row, T* S) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t l = 0; l < W; ++l) S[j * W + l] = row + l < n ? state[(row + l) * n + j] : T(0);
  }
}

template <int W, class T>
void write_rows(const T* S, int64_t n, int64_t row, T* state) {
  for (int64_t l = 0; l < std::min<int64_t>(W, n - row); ++l) {
    for (int64_t j = 0; j < n; ++j) state[(row + l) * n + j] = S[j * W + l];
  }
}

template <class T>
struct Steps {  // a chunk of one head; the step after is `stride` elements on, of w it is n
  const T *r, *w, *k, *v, *a, *b;
  const uint8_t* reset;  // may be null
  int64_t count, stride, n;
};

template <int W, class T>
void run_rows(const Steps<T>& s, int64_t row, T* __restrict S, T* y) {
  const int64_t n = s.n, rows = std::min<int64_t>(W, n - row);
  T u[W] = {};
  for (int64_t j = 0; j < n; ++j) {
    for (int l = 0; l < W; ++l) u[l] += S[j * W + l] * s.a[j];
  }
  for (int64_t t = 0; t < s.count; ++t) {
    if (s.reset && s.reset[t]) {
      std::fill_n(S, n * W, T(0));
      std::fill_n(u, W, T(0));
    }
    const int64_t x = t * s.stride;
    const T* __restrict r = s.r + x;
    const T* __restrict w = s.w + t * n;
    const T* __restrict k = s.k + x;
    const T* __restrict b = s.b + x;
    const T* __restrict next_a = s.a + (t + 1 < s.count ? x + s.stride : x);
    T v[W] = {}, out[W] = {}, next_u[W] = {};
    std::copy_n(s.v + x + row, rows, v);
    for (int64_t j = 0; j < n; ++j) {
      const T rj = r[j], wj = w[j], kj = k[j], bj = b[j], aj = next_a[j];
      T* __restrict p = S + j * W;
      for (int l = 0; l < W; ++l) {
        const T z = p[l] * wj + u[l] * bj + v[l] * kj;
        p[l] = z;
        out[l] += z * rj;
        next_u[l] += z * aj;
      }
    }
    std::copy_n(out, rows, y + x + row);
    std::copy_n(next_u, W, u);
  }
}

template <int W, class T>
void forward_heads(const Wkv7Inputs& in, Tensor& y, Tensor& state, Tensor& starts, int64_t begin, int64_t end) {
  const int64_t H = in.heads, n = in.head_size(), C = in.channels(), steps = in.time();
  const int64_t groups = (n + W - 1) / W;
  Scratch<T> S(groups * W * n), w(kChunk * n);
  for (int64_t bh = begin; bh < end; ++bh) {
    const int64_t batch = bh / H, first = batch * steps * C + bh % H * n;
    const T* given = in.state.defined() ? in.state.data<T>() + bh * n * n : nullptr;
    if (!given) S.clear();
    for (int64_t g = 0; given && g < groups; ++g) read_rows<W>(given, n, g * W, S.data() + g * W * n);
    for (int64_t t = 0; t < steps; t += kChunk) {
      const int64_t count = std::min<int64_t>(kChunk, steps - t), x = first + t * C;
      if (starts.defined() && t > 0) {
        T* to = starts.data<T>() + (bh * starts.size(1) + t / kChunk - 1) * n * n;
        for (int64_t g = 0; g < groups; ++g) write_rows<W>(S.data() + g * W * n, n, g * W, to);
      }
      for (int64_t i = 0; i < count; ++i) {
        decay(in.w.data<T>() + x + i * C, n, w.data() + i * n, static_cast<T*>(nullptr));
      }
      const uint8_t* reset = in.reset.defined() ? in.reset.data<uint8_t>() + batch * steps + t : nullptr;
      const auto at = [x](const Tensor& vectors) { return vectors.data<T>() + x; };
      const Steps<T> s{at(in.r), w.data(), at(in.k), at(in.v), at(in.a), at(in.b), reset, count, C, n};
      for (int64_t g = 0; g < groups; ++g) run_rows<W>(s, g * W, S.data() + g * W * n, y.data<T>() + x);
    }
    for (int64_t g = 0; g < groups; ++g) {
      write_rows<W>(S.data() + g * W * n, n, g * W, state.data<T>() + bh * n * n);
    }
  }
}

// Calls body(begin, end) on ranges of heads, one a thread. A thread is woken for 320 microseconds of work, as
// parallel_for would: `ns` is the time of one element of a state in one step.
template <class Body>
void for_heads(const Wkv7Inputs& in, double ns, Body&& body) {
  const int64_t heads = in.batch() * in.heads, n = in.head_size();
  const double work = ns * double(heads) * double(in.time()) * double(n * n);
  const int64_t ranges = std::min<int64_t>(heads, 1 + int64_t(work / 320e3));
  parallel_for(ranges, 0,
               [&](int64_t begin, int64_t end) { body(heads * begin / ranges, heads * end / ranges); });
}

void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, bool keep, Tensor& starts) {
  const int64_t n = in.head_size(), kept = std::max<int64_t>(0, chunks(in.time()) - 1);
  if (keep) starts = Tensor::empty({in.batch() * in.heads, kept, n, n}, state.dtype());
  for_cpu_float("wkv7", in.r.dtype(), [&](auto type) {
    using T = decltype(type);
    for_heads(in, 0.13, [&](int64_t begin, int64_t end) {
      if (n <= 16) {
        forward_heads<16, T>(in, y, state, starts, begin, end);
      } else {
        forward_heads<32, T>(in, y, state, starts, begin, end);
      }
    });
  });
}

// ---------------------------------------------------------------- backward

// With G = dL/dS after step t, S' the state before it and S the one after:
//   dr = S^T dy;  G += dy r^T;  dw = sum_i G S';  dk = G^T v;  dv = G k;  db = G^T u;  du = G b;  da = S'^T du;
//   G = G diag(w) + du a^T
// Here the keys are in vector lanes: five of the sums run over the rows and two (three with u) over the keys. N
// is the head size rounded up, so that every loop has a constant length; what lies beyond the head's own n rows
// and keys is zero.

// The places of a step's vectors of N in `in`, and of its gradients in `out`.
enum Place { kR, kW, kK, kV, kA, kB, kDy, kSlope, kPlaces };
struct Vector {
  Place place;
  const Tensor& tensor;
};

// kRows rows, one step: u = S a, after = S diag(w) + u b^T + v k^T.
template <int N, class T>
void step_rows(const T* __restrict S, const T* __restrict in, int64_t row, T* __restrict u,
               T* __restrict after) {
  for (int i0 = 0; i0 < kRows; i0 += kUnroll, S += kUnroll * N, after += kUnroll * N, u += kUnroll) {
    T sum[kUnroll] = {}, vi[kUnroll];
    std::copy_n(in + kV * N + row + i0, kUnroll, vi);
    for (int j = 0; j < N; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) sum[i] += S[i * N + j] * in[kA * N + j];
    }
    std::copy_n(sum, kUnroll, u);
    for (int j = 0; j < N; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) {
        after[i * N + j] = S[i * N + j] * in[kW * N + j] + sum[i] * in[kB * N + j] + vi[i] * in[kK * N + j];
      }
    }
  }
}

// kRows rows: G += dy r^T, dv = G k, du = G b.
template <int N, class T>
void sums_over_keys(T* __restrict G, const T* __restrict in, int64_t row, T* __restrict dv, T* __restrict du) {
  const T* dy = in + kDy * N + row;
  for (int i0 = 0; i0 < kRows; i0 += kUnroll, G += kUnroll * N, dy += kUnroll, dv += kUnroll, du += kUnroll) {
    T dyi[kUnroll], k[kUnroll] = {}, b[kUnroll] = {};
    std::copy_n(dy, kUnroll, dyi);
    for (int j = 0; j < N; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) {
        const T g = G[i * N + j] + dyi[i] * in[kR * N + j];
        G[i * N + j] = g;
        k[i] += g * in[kK * N + j];
        b[i] += g * in[kB * N + j];
      }
    }
    std::copy_n(k, kUnroll, dv);
    std::copy_n(b, kUnroll, du);
  }
}

// kRows rows: adds their part of dr, dw, dk, da, db to `out`, then G = G diag(w) + du a^T.
template <int N, class T>
void sums_over_rows(T* __restrict G, const T* __restrict before, const T* __restrict after,
                    const T* __restrict in, int64_t row, const T* __restrict u, const T* __restrict du,
                    T* __restrict out) {
  for (int i0 = 0; i0 < kRows; i0 += kUnroll, G += kUnroll * N, before += kUnroll * N, after += kUnroll * N) {
    T vi[kUnroll], ui[kUnroll], dui[kUnroll], dyi[kUnroll];
    std::copy_n(in + kV * N + row + i0, kUnroll, vi);
    std::copy_n(in + kDy * N + row + i0, kUnroll, dyi);
    std::copy_n(u + i0, kUnroll, ui);
    std::copy_n(du + i0, kUnroll, dui);
    for (int j = 0; j < N; ++j) {
      T r = 0, w = 0, k = 0, a = 0, b = 0;
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) {
        const T g = G[i * N + j], s = before[i * N + j];
        r += after[i * N + j] * dyi[i];
        w += g * s;
        k += g * vi[i];
        b += g * ui[i];
        a += s * dui[i];
        G[i * N + j] = g * in[kW * N + j] + dui[i] * in[kA * N + j];
      }
      out[kR * N + j] += r;
      out[kW * N + j] += w;
      out[kK * N + j] += k;
      out[kA * N + j] += a;
      out[kB * N + j] += b;
    }
  }
}

template <int N, class T>
void backward_heads(const Wkv7Inputs& x, const Tensor& starts, const Tensor& dy, const Tensor& dstate,
                    Wkv7Gradients& d, int64_t begin, int64_t end) {
  constexpr int kStep = kPlaces * N, kBlock = kRows * N;
  const int64_t H = x.heads, n = x.head_size(), C = x.channels(), steps = x.time();
  Scratch<T> in(kChunk * kStep), out(kChunk * kStep), states((kChunk + 1) * kBlock), zeros(kBlock), G(N * N);
  T u[kChunk * kRows], du[kRows];
  for (int64_t bh = begin; bh < end; ++bh) {
    const int64_t batch = bh / H, first = batch * steps * C + bh % H * n;
    G.clear();
    for (int64_t i = 0; dstate.defined() && i < n; ++i) {
      std::copy_n(dstate.data<T>() + (bh * n + i) * n, n, G.data() + i * N);
    }
    for (int64_t c = chunks(steps) - 1; c >= 0; --c) {
      const int64_t t0 = c * kChunk, count = std::min<int64_t>(kChunk, steps - t0);
      const uint8_t* reset = x.reset.defined() ? x.reset.data<uint8_t>() + batch * steps + t0 : nullptr;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t at = first + (t0 + t) * C;
        T* p = in.data() + t * kStep;
        decay(x.w.data<T>() + at, n, p + kW * N, p + kSlope * N);
        for (const Vector& from : {Vector{kR, x.r}, {kK, x.k}, {kV, x.v}, {kA, x.a}, {kB, x.b}, {kDy, dy}}) {
          std::copy_n(from.tensor.data<T>() + at, n, p + from.place * N);
        }
      }
      out.clear();
      const T* start = c > 0               ? starts.data<T>() + (bh * starts.size(1) + c - 1) * n * n
                       : x.state.defined() ? x.state.data<T>() + bh * n * n
                                           : nullptr;
      for (int64_t row = 0; row < n; row += kRows) {
        // states + t * kBlock: before step t of the chunk, and before its reset.
        std::fill_n(states.data(), kBlock, T(0));
        for (int64_t i = 0; start && i < std::min<int64_t>(kRows, n - row); ++i) {
          std::copy_n(start + (row + i) * n, n, states.data() + i * N);
        }
        const auto before = [&](int64_t t) {
          return reset && reset[t] ? zeros.data() : states.data() + t * kBlock;
        };
        for (int64_t t = 0; t < count; ++t) {
          step_rows<N>(before(t), in.data() + t * kStep, row, u + t * kRows, states.data() + (t + 1) * kBlock);
        }
        T* g = G.data() + row * N;
        for (int64_t t = count - 1; t >= 0; --t) {
          const T* p = in.data() + t * kStep;
          T* q = out.data() + t * kStep;
          sums_over_keys<N>(g, p, row, q + kV * N + row, du);
          sums_over_rows<N>(g, before(t), states.data() + (t + 1) * kBlock, p, row, u + t * kRows, du, q);
          if (reset && reset[t]) std::fill_n(g, kBlock, T(0));
        }
      }
      for (int64_t t = 0; t < count; ++t) {
        const int64_t at = first + (t0 + t) * C;
        const T* q = out.data() + t * kStep;
        for (const Vector& to : {Vector{kR, d.r}, {kK, d.k}, {kV, d.v}, {kA, d.a}, {kB, d.b}}) {
          if (to.tensor.defined()) std::copy_n(q + to.place * N, n, to.tensor.data<T>() + at);
        }
        if (!d.w.defined()) continue;
        const T* slope = in.data() + t * kStep + kSlope * N;
        for (int64_t j = 0; j < n; ++j) d.w.data<T>()[at + j] = q[kW * N + j] * slope[j];
      }
    }
    for (int64_t i = 0; d.state.defined() && i < n; ++i) {
      std::copy_n(G.data() + i * N, n, d.state.data<T>() + (bh * n + i) * n);
    }
  }
}

void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy, const Tensor& dstate,
                   Wkv7Gradients& d) {
  const int64_t n = in.head_size();
  for_cpu_float("wkv7", in.r.dtype(), [&](auto type) {
    using T = decltype(type);
    for_heads(in, 0.45, [&](int64_t begin, int64_t end) {
      const auto heads = n <= 16   ? backward_heads<16, T>
                         : n <= 32 ? backward_heads<32, T>
                         : n <= 64 ? backward_heads<64, T>
                                   : backward_heads<128, T>;
      heads(in, starts, dy, dstate, d, begin, end);
    });
  });
}

}  // namespace cpu

// ---------------------------------------------------------------- checks and the tape

DType state_type(const Tensor& r) { return r.dtype() == DType::f64 ? DType::f64 : DType::f32; }

void check(const Wkv7Inputs& in) {
  const Tensor& r = in.r;
  require(r.rank() == 3 && in.heads > 0 && r.size(2) > 0 && r.size(2) % in.heads == 0 && in.head_size() <= 128,
          "wkv7: r is {}, expected [B, T, C] with C in {} heads of 1 to 128 channels", r.str(), in.heads);
  const std::pair<const char*, const Tensor*> others[] = {
      {"w", &in.w}, {"k", &in.k}, {"v", &in.v}, {"a", &in.a}, {"b", &in.b}};
  for (const auto& [name, x] : others) {
    require(x->shape() == r.shape() && x->dtype() == r.dtype() && x->device() == r.device(),
            "wkv7: {} is {}, r is {}", name, x->str(), r.str());
  }
  const Shape state{in.batch(), in.heads, in.head_size(), in.head_size()}, reset{in.batch(), in.time()};
  const auto is = [&](const Tensor& x, const Shape& shape, DType type) {
    return !x.defined() || (x.shape() == shape && x.dtype() == type && x.device() == r.device());
  };
  require(is(in.state, state, state_type(r)), "wkv7: state is {}, expected {} {} on {}", in.state.str(),
          name_of(state_type(r)), state.str(), to_string(r.device()));
  require(is(in.reset, reset, DType::u8), "wkv7: reset is {}, expected u8 {} on {}", in.reset.str(),
          reset.str(), to_string(r.device()));
}

}  // namespace

Wkv7Output wkv7(const Variable& r, const Variable& w, const Variable& k, const Variable& v, const Variable& a,
                const Variable& b, int64_t heads, const Variable& state, const Tensor& reset) {
  const Tensor given = state.defined() ? state.value() : Tensor();
  const Wkv7Inputs in{r.value(), w.value(), k.value(), v.value(), a.value(), b.value(), given, reset, heads};
  check(in);
  const std::vector<Variable> inputs = {r, w, k, v, a, b, state};
  const int64_t n = in.head_size();
  Tensor y = Tensor::empty_like(in.r), starts;
  Tensor last = Tensor::empty({in.batch(), heads, n, n}, state_type(in.r), r.device());
  run(r.device(), cpu::wkv7_forward, cuda::wkv7_forward, in, y, last, will_record(inputs), starts);
  const std::vector<Variable> out = record("wkv7", {y, last}, inputs, [in, starts](Grads& g) {
    Wkv7Gradients d;
    Tensor* const all[] = {&d.r, &d.w, &d.k, &d.v, &d.a, &d.b, &d.state};
    for (int i = 0; i < 7; ++i) {
      if (g.wants(i)) *all[i] = g.write(i);
    }
    run(in.r.device(), cpu::wkv7_backward, cuda::wkv7_backward, in, starts, g.out(0),
        g.has_out(1) ? g.out(1) : Tensor(), d);
  });
  return {out[0], out[1]};
}

}  // namespace modrwkv
