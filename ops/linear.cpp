// Linear layers: three GEMMs and a column sum.
#include "ops/linear.h"

#include <algorithm>

#include "core/error.h"
#include "core/gemm.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

// A thread owns a range of columns and walks over all rows.
void bias_gradient(const Tensor& dy, Tensor& db) {
  const int64_t columns = db.numel(), rows = columns ? dy.numel() / columns : 0;
  for_cpu_float("linear: bias", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    T* sum = db.data<T>();
    parallel_for(columns, 1 + (1 << 15) / (rows + 1), [&](int64_t begin, int64_t end) {
      std::fill(sum + begin, sum + end, T(0));
      for (int64_t r = 0; r < rows; ++r) {
        const T* row = dy.data<T>() + r * columns;
        for (int64_t c = begin; c < end; ++c) sum[c] += row[c];
      }
    });
  });
}

}  // namespace cpu

void check_linear(const Variable& x, const Variable& weight, const Variable& bias, bool out_in) {
  const Shape& w = weight.shape();
  require(w.rank() == 2 && x.shape().rank() >= 1 && x.size(-1) == w[out_in ? 1 : 0],
          "linear: input is {}, weight {} is stored {}", x.value().str(), w.str(),
          out_in ? "[out, in]" : "[in, out]");
  require(weight.dtype() == x.dtype() && weight.device() == x.device(), "linear: input is {}, weight is {}",
          x.value().str(), weight.value().str());
  const int64_t out = w[out_in ? 0 : 1];
  require(!bias.defined() ||
              (bias.value().numel() == out && bias.dtype() == x.dtype() && bias.device() == x.device()),
          "linear: bias is {}, expected {} values like {}", bias.defined() ? bias.value().str() : "", out,
          x.value().str());
}

}  // namespace

void bias_gradient(const Tensor& dy, Tensor& db) {
  run(dy.device(), cpu::bias_gradient, cuda::bias_gradient, dy, db);
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias, WeightLayout layout) {
  const bool out_in = layout == WeightLayout::out_in;
  check_linear(x, weight, bias, out_in);
  Shape shape = x.shape();
  shape[-1] = weight.size(out_in ? 0 : 1);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor flat_bias = bias.defined() ? bias.value().reshape({-1}) : Tensor();
  gemm(x.value(), weight.value(), y, {.trans_b = out_in}, bias.defined() ? &flat_bias : nullptr);
  return record("linear", y, {x, weight, bias}, [out_in, x = x.value(), weight = weight.value()](Grads& g) {
    const Tensor& dy = g.out();
    if (g.wants(0)) {
      Tensor dx = g.write(0);
      gemm(dy, weight, dx, {.trans_b = !out_in});
    }
    if (g.wants(1)) {
      Tensor dw = g.write_param(1);
      if (out_in) {
        gemm(dy, x, dw, {.trans_a = true});
      } else {
        gemm(x, dy, dw, {.trans_a = true});
      }
    }
    if (g.wants(2)) {
      Tensor db = g.write_param(2);
      bias_gradient(dy, db);
    }
  });
}

}  // namespace modrwkv
