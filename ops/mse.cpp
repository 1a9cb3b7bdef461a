// Mean square and mean absolute error: CPU code, checks and the tape.
#include "ops/mse.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

// value(x - y) summed over [begin, end) where mask is not 0, and how many those are.
template <class T, class Value>
void sum_part(const T* x, const T* y, const uint8_t* mask, int64_t begin, int64_t end, Value value, double& sum,
              int64_t& count) {
  T total = 0;
  int64_t counted = end - begin;
  if (mask == nullptr) {
    for (int64_t i = begin; i < end; ++i) total += value(x[i] - y[i]);
  } else {
    counted = 0;
    for (int64_t i = begin; i < end; ++i) counted += mask[i] != 0;
    for (int64_t i = begin; i < end; ++i) total += mask[i] != 0 ? value(x[i] - y[i]) : T(0);
  }
  sum = double(total);
  count = counted;
}

void distance_forward(Distance d, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                      Tensor& loss, Tensor& inverse_count) {
  constexpr int64_t part = 1 << 12;  // parts of fixed size, so that the sum does not depend on the thread count
  const int64_t n = prediction.numel(), parts = (n + part - 1) / part;
  std::vector<double> sums(size_t(parts), 0.0);
  std::vector<int64_t> counts(size_t(parts), 0);
  for_cpu_float("mse", prediction.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* x = prediction.data<T>();
    const T* y = target.data<T>();
    const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
    parallel_for(parts, 8, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t first = p * part, last = std::min(n, first + part);
        double& sum = sums[size_t(p)];
        int64_t& count = counts[size_t(p)];
        if (d == Distance::square) {
          sum_part(
              x, y, known, first, last, [](T e) { return e * e; }, sum, count);
        } else {
          sum_part(
              x, y, known, first, last, [](T e) { return std::fabs(e); }, sum, count);
        }
      }
    });
    double sum = 0, count = 0;
    for (int64_t p = 0; p < parts; ++p) {
      sum += sums[size_t(p)];
      count += double(counts[size_t(p)]);
    }
    loss.data<T>()[0] = count > 0 ? T(sum / count) : T(0);
    inverse_count.data<T>()[0] = count > 0 ? T(1 / count) : T(0);
  });
}

void distance_backward(Distance d, const Tensor& dloss, const Tensor& prediction, const Tensor& target,
                       const Tensor& mask, const Tensor& inverse_count, Tensor& dprediction) {
  for_cpu_float("mse", prediction.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* x = prediction.data<T>();
    const T* y = target.data<T>();
    T* dx = dprediction.data<T>();
    const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
    const T factor = dloss.data<T>()[0] * inverse_count.data<T>()[0];
    parallel_for(prediction.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      if (d == Distance::square) {
        for (int64_t i = begin; i < end; ++i) dx[i] = 2 * factor * (x[i] - y[i]);
      } else {
        for (int64_t i = begin; i < end; ++i) {
          const T e = x[i] - y[i];
          dx[i] = factor * (e > 0 ? T(1) : e < 0 ? T(-1) : e);  // 0 for 0, NaN for NaN
        }
      }
      if (known == nullptr) return;
      for (int64_t i = begin; i < end; ++i) dx[i] = known[i] != 0 ? dx[i] : T(0);
    });
  });
}

}  // namespace cpu

Variable distance(const char* op, Distance d, const Variable& prediction, const Tensor& target,
                  const Tensor& mask) {
  const Tensor& x = prediction.value();
  require(target.defined() && target.shape() == x.shape() && target.device() == x.device() &&
              (target.dtype() == x.dtype() || (target.dtype() == DType::f32 && x.dtype() == DType::bf16)),
          "{}: prediction is {}, target is {}", op, x.str(), target.defined() ? target.str() : "undefined");
  require(!mask.defined() ||
              (mask.shape() == x.shape() && mask.dtype() == DType::u8 && mask.device() == x.device()),
          "{}: mask is {}, expected u8 {} on {}", op, mask.str(), x.shape().str(), to_string(x.device()));
  const DType type = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  Tensor loss = Tensor::empty({1}, type, x.device()), inverse_count = Tensor::empty_like(loss);
  run(x.device(), cpu::distance_forward, cuda::distance_forward, d, x, target, mask, loss, inverse_count);
  return record(op, loss, {prediction}, [d, x, target, mask, inverse_count](Grads& g) {
    Tensor dx = g.write(0);
    run(x.device(), cpu::distance_backward, cuda::distance_backward, d, g.out(), x, target, mask, inverse_count,
        dx);
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
