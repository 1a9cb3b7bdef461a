// Layer norm and group norm: CPU code, checks and the tape.
#include "ops/layer_norm.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

int64_t grain(int64_t row_size) { return 1 + (1 << 14) / (row_size + 1); }

namespace cpu {

void layer_norm_forward(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                        Tensor& y, Tensor& mean, Tensor& rstd) {
  const int64_t n = x.size(-1) / groups, rows = mean.numel();
  for_cpu_float("layer_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* px = x.data<T>() + r * n;
        const T* w = weight.data<T>() + (r % groups) * n;
        const T* b = bias.data<T>() + (r % groups) * n;
        T* py = y.data<T>() + r * n;
        T sum = 0, square = 0;
        for (int64_t i = 0; i < n; ++i) sum += px[i];
        const T m = sum / T(n);
        for (int64_t i = 0; i < n; ++i) square += (px[i] - m) * (px[i] - m);
        const T s = T(1) / std::sqrt(square / T(n) + T(eps));
        for (int64_t i = 0; i < n; ++i) py[i] = (px[i] - m) * s * w[i] + b[i];
        mean.data<T>()[r] = m;
        rstd.data<T>()[r] = s;
      }
    });
  });
}

// With q = dy * weight and h = (x - mean) * rstd:  dx = rstd * (q - mean(q) - h * mean(q h)); dweight = sum dy
// h.
void layer_norm_backward(const Tensor& dy, const Tensor& x, int64_t groups, const Tensor& weight,
                         const Tensor& mean, const Tensor& rstd, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const int64_t n = x.size(-1) / groups, rows = mean.numel();
  for_cpu_float("layer_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* m = mean.data<T>();
    const T* s = rstd.data<T>();
    if (dx.defined()) {
      parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const T* px = x.data<T>() + r * n;
          const T* pdy = dy.data<T>() + r * n;
          const T* w = weight.data<T>() + (r % groups) * n;
          T* pdx = dx.data<T>() + r * n;
          T sum_q = 0, sum_qh = 0;
          for (int64_t i = 0; i < n; ++i) {
            const T q = pdy[i] * w[i];
            sum_q += q;
            sum_qh += q * (px[i] - m[r]) * s[r];
          }
          const T mean_q = sum_q / T(n), mean_qh = sum_qh / T(n);
          for (int64_t i = 0; i < n; ++i) {
            pdx[i] = s[r] * (pdy[i] * w[i] - mean_q - (px[i] - m[r]) * s[r] * mean_qh);
          }
        }
      });
    }
    if (!dweight.defined() && !dbias.defined()) return;
    // A thread owns a range of channels and walks over all rows.
    parallel_for(n * groups, 1 + (1 << 14) / (rows / groups + 1), [&](int64_t begin, int64_t end) {
      if (dweight.defined()) std::fill(dweight.data<T>() + begin, dweight.data<T>() + end, T(0));
      if (dbias.defined()) std::fill(dbias.data<T>() + begin, dbias.data<T>() + end, T(0));
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t shift = (r % groups) * n;  // first channel of this row
        const int64_t from = std::max(begin, shift) - shift, to = std::min(end, shift + n) - shift;
        const T* px = x.data<T>() + r * n;
        const T* pdy = dy.data<T>() + r * n;
        if (dweight.defined()) {
          T* dw = dweight.data<T>() + shift;
          for (int64_t i = from; i < to; ++i) dw[i] += pdy[i] * (px[i] - m[r]) * s[r];
        }
        if (dbias.defined()) {
          T* db = dbias.data<T>() + shift;
          for (int64_t i = from; i < to; ++i) db[i] += pdy[i];
        }
      }
    });
  });
}

}  // namespace cpu

Variable normalise(const char* op, const Variable& x, int64_t groups, const Variable& weight,
                   const Variable& bias, double eps) {
  const Shape& s = x.shape();
  require(s.rank() >= 1 && groups >= 1 && s[-1] % groups == 0, "{}: input {} cannot be cut into {} groups", op,
          x.value().str(), groups);
  for (const Variable* p : {&weight, &bias}) {
    require(p->shape() == Shape{s[-1]} && p->dtype() == x.dtype() && p->device() == x.device(),
            "{}: input is {}, {} is {}, expected {} [{}] on {}", op, x.value().str(),
            p == &weight ? "weight" : "bias", p->value().str(), name_of(x.dtype()), s[-1],
            to_string(x.device()));
  }
  const int64_t rows = s[-1] == 0 ? 0 : x.value().numel() / s[-1] * groups;
  const DType statistics = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  Tensor y = Tensor::empty_like(x.value());
  Tensor mean = Tensor::empty({rows}, statistics, x.device()), rstd = Tensor::empty_like(mean);
  run(x.device(), cpu::layer_norm_forward, cuda::layer_norm_forward, x.value(), groups, weight.value(),
      bias.value(), eps, y, mean, rstd);
  return record(op, y, {x, weight, bias},
                [groups, x = x.value(), weight = weight.value(), mean, rstd](Grads& g) {
                  Tensor dx = g.wants(0) ? g.write(0) : Tensor();
                  Tensor dweight = g.wants(1) ? g.write_param(1) : Tensor(),
                         dbias = g.wants(2) ? g.write_param(2) : Tensor();
                  run(x.device(), cpu::layer_norm_backward, cuda::layer_norm_backward, g.out(), x, groups,
                      weight, mean, rstd, dx, dweight, dbias);
                });
}

}  // namespace

Variable layer_norm(const Variable& x, const Variable& weight, const Variable& bias, double eps) {
  return normalise("layer_norm", x, 1, weight, bias, eps);
}

Variable group_norm(const Variable& x, int64_t groups, const Variable& weight, const Variable& bias,
                    double eps) {
  return normalise("group_norm", x, groups, weight, bias, eps);
}

}  // namespace modrwkv
