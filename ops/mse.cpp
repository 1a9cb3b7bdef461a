// Mean square and mean absolute error: CPU code, checks and the tape.
#include "ops/mse.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

constexpr int64_t kPart = 1 << 14;  // elements of a partial sum, so that the sum does not depend on the thread count

namespace cpu {

void mse_forward(Distance d, const Tensor& prediction, const Tensor& target, const Tensor& mask, Tensor& loss,
                 Tensor& inverse_count) {
  const int64_t n = prediction.numel(), parts = (n + kPart - 1) / kPart;
  const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
  for_cpu_float("mse", prediction.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* x = prediction.data<T>();
    const T* y = target.data<T>();
    std::vector<double> sums(size_t(parts), 0.0), counts(size_t(parts), 0.0);
    parallel_for(parts, 2, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        double sum = 0, count = 0;
        for (int64_t i = p * kPart; i < std::min(n, (p + 1) * kPart); ++i) {
          const double e = double(x[i]) - double(y[i]);
          const double value = d == Distance::square ? e * e : std::fabs(e);
          const bool counts_too = known == nullptr || known[i] != 0;
          sum += counts_too ? value : 0.0;
          count += counts_too;
        }
        sums[size_t(p)] = sum;
        counts[size_t(p)] = count;
      }
    });
    double sum = 0, count = 0;
    for (int64_t p = 0; p < parts; ++p) sum += sums[size_t(p)], count += counts[size_t(p)];
    loss.data<T>()[0] = count > 0 ? T(sum / count) : T(0);
    inverse_count.data<T>()[0] = count > 0 ? T(1 / count) : T(0);
  });
}

void mse_backward(Distance d, const Tensor& dloss, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                  const Tensor& inverse_count, Tensor& dprediction) {
  const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
  for_cpu_float("mse", prediction.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* x = prediction.data<T>();
    const T* y = target.data<T>();
    T* dx = dprediction.data<T>();
    const T factor = dloss.data<T>()[0] * inverse_count.data<T>()[0];
    parallel_for(prediction.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T e = x[i] - y[i];
        const T slope = d == Distance::square ? 2 * e : e > 0 ? T(1) : e < 0 ? T(-1) : e;  // NaN stays NaN
        dx[i] = known == nullptr || known[i] != 0 ? factor * slope : T(0);
      }
    });
  });
}

}  // namespace cpu

Variable distance(const char* op, Distance d, const Variable& prediction, const Tensor& target, const Tensor& mask) {
  const Tensor& x = prediction.value();
  require(target.shape() == x.shape() && target.dtype() == x.dtype() && target.device() == x.device(),
          "{}: prediction is {}, target is {}", op, x.str(), target.str());
  require(!mask.defined() || (mask.shape() == x.shape() && mask.dtype() == DType::u8 && mask.device() == x.device()),
          "{}: mask is {}, expected u8 {} on {}", op, mask.str(), x.shape().str(), to_string(x.device()));
  const DType type = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  Tensor loss = Tensor::empty({1}, type, x.device()), inverse_count = Tensor::empty_like(loss);
  run(x.device(), cpu::mse_forward, cuda::mse_forward, d, x, target, mask, loss, inverse_count);
  return record(op, loss, {prediction}, [d, x, target, mask, inverse_count](Grads& g) {
    Tensor dx = g.write(0);
    run(x.device(), cpu::mse_backward, cuda::mse_backward, d, g.out(), x, target, mask, inverse_count, dx);
  });
}

}  // namespace

Variable mse(const Variable& prediction, const Tensor& target, const Tensor& mask) {
  return distance("mse", Distance::square, prediction, target, mask);
}

Variable mae(const Variable& prediction, const Tensor& target, const Tensor& mask) {
  return distance("mae", Distance::absolute, prediction, target, mask);
}

}  // namespace modrwkv
