// End of the time mix: CPU code, checks and the tape.
#include "ops/time_mix_output.h"

#include <cmath>

#include "core/error.h"
#include "ops/row_chunks.h"

namespace modrwkv {
namespace {

constexpr int64_t kMostHeadChannels = 4096;  // on CUDA: the sums of a head must fit into shared memory

namespace cpu {

// One head of one token; `bonus` is the factor of v.
template <class T>
void head_forward(int64_t n, T eps, const T* __restrict__ y, const T* __restrict__ r, const T* __restrict__ k,
                  const T* __restrict__ v, const T* __restrict__ g, const T* __restrict__ r_k,
                  const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ out,
                  T* __restrict__ mean, T* __restrict__ rstd) {
  T sum = 0, bonus = 0, square = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += y[i];
    bonus += r[i] * k[i] * r_k[i];
  }
  const T m = sum / T(n);
  for (int64_t i = 0; i < n; ++i) square += (y[i] - m) * (y[i] - m);
  const T s = T(1) / std::sqrt(square / T(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = ((y[i] - m) * s * weight[i] + bias[i] + bonus * v[i]) * g[i];
  *mean = m;
  *rstd = s;
}

// With o the gated value, do = dout g, h = (y - mean) rstd, q = do weight, ds = <do, v>: dg = dout o, dv =
// bonus do, dr = ds k r_k, dk = ds r r_k, dy = rstd (q - mean(q) - h mean(q h)); r_k += ds r k, weight += do h,
// bias += do.
template <class T>
void head_backward(int64_t n, T m, T s, const T* __restrict__ dout, const T* __restrict__ y,
                   const T* __restrict__ r, const T* __restrict__ k, const T* __restrict__ v,
                   const T* __restrict__ g, const T* __restrict__ r_k, const T* __restrict__ weight,
                   const T* __restrict__ bias, T* __restrict__ dy, T* __restrict__ dr, T* __restrict__ dk,
                   T* __restrict__ dv, T* __restrict__ dg, T* __restrict__ dr_k, T* __restrict__ dweight,
                   T* __restrict__ dbias) {
  T bonus = 0, ds = 0, sum_q = 0, sum_qh = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T d = dout[i] * g[i], q = d * weight[i];
    bonus += r[i] * k[i] * r_k[i];
    ds += d * v[i];
    sum_q += q;
    sum_qh += q * ((y[i] - m) * s);
  }
  const T mean_q = sum_q / T(n), mean_qh = sum_qh / T(n);
  for (int64_t i = 0; i < n; ++i) {
    const T d = dout[i] * g[i], h = (y[i] - m) * s;
    dg[i] = dout[i] * (h * weight[i] + bias[i] + bonus * v[i]);
    dv[i] = bonus * d;
    dr[i] = ds * k[i] * r_k[i];
    dk[i] = ds * r[i] * r_k[i];
    dy[i] = s * (d * weight[i] - mean_q - h * mean_qh);
    dr_k[i] += ds * r[i] * k[i];
    dweight[i] += d * h;
    dbias[i] += d;
  }
}

void time_mix_output_forward(TimeMixOutput& in, double eps, Tensor& out) {
  const int64_t heads = in.r_k.size(0), n = in.r_k.size(1);
  for_cpu_float("time_mix_output", out.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(in.mean.numel(), 1 + (1 << 13) / (n + 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * n, h = row % heads * n;
        head_forward(n, T(eps), in.y.data<T>() + at, in.r.data<T>() + at, in.k.data<T>() + at,
                     in.v.data<T>() + at, in.g.data<T>() + at, in.r_k.data<T>() + h, in.weight.data<T>() + h,
                     in.bias.data<T>() + h, out.data<T>() + at, in.mean.data<T>() + row,
                     in.rstd.data<T>() + row);
      }
    });
  });
}

void time_mix_output_backward(const TimeMixOutput& in, const Tensor& dout, TimeMixOutputGradients& d) {
  const int64_t heads = in.r_k.size(0), n = in.r_k.size(1);
  for_cpu_float("time_mix_output", dout.dtype(), [&](auto t) {
    using T = decltype(t);
    for_row_chunks<T>(
        in.mean.numel() / heads, 4 * n * heads, {d[5], d[6], d[7]},
        [&](int64_t begin, int64_t end, const ChunkSums<T>& sums) {
          std::vector<T> unwanted(size_t(8 * n));  // takes what is not wanted
          const auto place = [&](int input, int64_t at) {
            return d[size_t(input)].defined() ? d[size_t(input)].data<T>() + at : unwanted.data() + input * n;
          };
          const auto sum = [&](int input, int64_t h) {
            return sums[size_t(input - 5)] ? sums[size_t(input - 5)] + h : unwanted.data() + input * n;
          };
          for (int64_t row = begin * heads; row < end * heads; ++row) {
            const int64_t at = row * n, h = row % heads * n;
            head_backward(n, in.mean.data<T>()[row], in.rstd.data<T>()[row], dout.data<T>() + at,
                          in.y.data<T>() + at, in.r.data<T>() + at, in.k.data<T>() + at, in.v.data<T>() + at,
                          in.g.data<T>() + at, in.r_k.data<T>() + h, in.weight.data<T>() + h,
                          in.bias.data<T>() + h, place(0, at), place(1, at), place(2, at), place(3, at),
                          place(4, at), sum(5, h), sum(6, h), sum(7, h));
          }
        });
  });
}

}  // namespace cpu

void check(const std::array<const Variable*, 8>& in) {
  constexpr const char* names[] = {"y", "r", "k", "v", "g", "r_k", "weight", "bias"};
  const Variable& y = *in[0];
  const int64_t channels = y.shape().rank() >= 1 ? y.size(-1) : -1;
  for (size_t i = 0; i < in.size(); ++i) {
    const Shape& s = in[i]->shape();
    const bool fits = i < 5    ? s == y.shape()
                      : i == 5 ? s.rank() == 2 && s[0] >= 1 && s.numel() == channels
                               : s == Shape{channels};
    require(fits && in[i]->dtype() == y.dtype() && in[i]->device() == y.device(),
            "time_mix_output: y is {}, {} is {}; expected y, r, k, v, g [.., C], r_k [heads, C / heads], "
            "weight and bias [C]",
            y.value().str(), names[i], in[i]->value().str());
  }
  require(!y.device().is_cuda() || in[5]->size(1) <= kMostHeadChannels,
          "time_mix_output: heads of {} channels, on CUDA at most {}", in[5]->size(1), kMostHeadChannels);
}

}  // namespace

Variable time_mix_output(const Variable& y, const Variable& r, const Variable& k, const Variable& v,
                         const Variable& g, const Variable& r_k, const Variable& weight, const Variable& bias,
                         double eps) {
  check({&y, &r, &k, &v, &g, &r_k, &weight, &bias});
  const int64_t n = r_k.size(1), rows = n == 0 ? 0 : y.value().numel() / n;
  const DType statistics = y.dtype() == DType::bf16 ? DType::f32 : y.dtype();
  TimeMixOutput in{y.value(),   r.value(),      k.value(),    v.value(), g.value(),
                   r_k.value(), weight.value(), bias.value(), {},        {}};
  in.mean = Tensor::empty({rows}, statistics, y.device());
  in.rstd = Tensor::empty_like(in.mean);
  Tensor out = Tensor::empty_like(y.value());
  run(y.device(), cpu::time_mix_output_forward, cuda::time_mix_output_forward, in, eps, out);
  return record("time_mix_output", out, {y, r, k, v, g, r_k, weight, bias}, [in](Grads& grads) {
    TimeMixOutputGradients d;
    for (int i = 0; i < 8; ++i) {
      if (grads.wants(i)) d[size_t(i)] = i < 5 ? grads.write(i) : grads.write_param(i);
    }
    run(in.y.device(), cpu::time_mix_output_backward, cuda::time_mix_output_backward, in, grads.out(), d);
  });
}

}  // namespace modrwkv
