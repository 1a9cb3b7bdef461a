// Cross entropy: CPU code, checks and the tape.
#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "core/vmath.h"

namespace modrwkv {
namespace {

namespace cpu {

int64_t grain(int64_t row_size) { return 1 + (1 << 12) / (row_size + 1); }

// The maximum in 16 interleaved parts, which the compiler turns into vector instructions. NaN is passed over:
// the sum of exponentials keeps it.
template <class T>
T largest(const T* x, int64_t n) {
  constexpr int64_t parts = 16;
  T part[parts];
  std::fill_n(part, parts, -std::numeric_limits<T>::infinity());
  int64_t i = 0;
  for (; i + parts <= n; i += parts) {
    for (int64_t j = 0; j < parts; ++j) part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
  }
  for (; i < n; ++i) part[0] = x[i] > part[0] ? x[i] : part[0];
  return *std::max_element(part, part + parts);
}

void cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& lse, Tensor& loss,
                           Tensor& inverse_count) {
  const int64_t n = logits.size(-1), rows = lse.numel();
  const int32_t* label = labels.data<int32_t>();
  int64_t count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    require(label[r] < n, "cross_entropy: label {} in row {}, the logits have {} classes", label[r], r, n);
    count += label[r] >= 0;
  }
  for_cpu_float("cross_entropy", logits.dtype(), [&](auto t) {
    using T = decltype(t);
    std::vector<double> row_loss(size_t(rows), 0.0);
    parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* x = logits.data<T>() + r * n;
        const T top = largest(x, n);
        T sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += vmath::exp(x[i] - top);
        const T tail = std::log(sum);
        lse.data<T>()[r] = top + tail;
        if (label[r] >= 0) row_loss[size_t(r)] = double(top - x[label[r]]) + double(tail);
      }
    });
    double sum = 0;
    for (const double x : row_loss) sum += x;
    inverse_count.data<T>()[0] = count > 0 ? T(1 / double(count)) : T(0);
    loss.data<T>()[0] = count > 0 ? T(sum / double(count)) : T(0);
  });
}

void cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels, const Tensor& lse,
                            const Tensor& inverse_count, Tensor& dlogits) {
  const int64_t n = logits.size(-1), rows = lse.numel();
  const int32_t* label = labels.data<int32_t>();
  for_cpu_float("cross_entropy", logits.dtype(), [&](auto t) {
    using T = decltype(t);
    const T scale = dloss.data<T>()[0] * inverse_count.data<T>()[0];
    parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* dx = dlogits.data<T>() + r * n;
        if (label[r] < 0) {
          std::fill_n(dx, n, T(0));
          continue;
        }
        const T* x = logits.data<T>() + r * n;
        const T l = lse.data<T>()[r];
        for (int64_t i = 0; i < n; ++i) dx[i] = vmath::exp(x[i] - l) * scale;
        dx[label[r]] = (vmath::exp(x[label[r]] - l) - 1) * scale;
      }
    });
  });
}

}  // namespace cpu
}  // namespace

Variable cross_entropy(const Variable& logits, const Tensor& labels) {
  const Tensor& x = logits.value();
  require(x.rank() >= 1, "cross_entropy: logits are {}, expected [.., V]", x.str());
  std::vector<int64_t> leading;
  for (int i = 0; i + 1 < x.rank(); ++i) leading.push_back(x.size(i));
  const Shape expected(leading);
  require(labels.defined() && labels.shape() == expected && labels.dtype() == DType::i32 &&
              labels.device() == x.device(),
          "cross_entropy: logits are {}, labels {}, expected i32 {} on {}", x.str(),
          labels.defined() ? labels.str() : "undefined", expected.str(), to_string(x.device()));
  const DType type = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  Tensor lse = Tensor::empty({labels.numel()}, type, x.device());
  Tensor loss = Tensor::empty({1}, type, x.device()), inverse_count = Tensor::empty_like(loss);
  run(x.device(), cpu::cross_entropy_forward, cuda::cross_entropy_forward, x, labels, lse, loss, inverse_count);
  return record("cross_entropy", loss, {logits}, [x, labels, lse, inverse_count](Grads& g) {
    Tensor dlogits = g.write(0);
    run(x.device(), cpu::cross_entropy_backward, cuda::cross_entropy_backward, g.out(), x, labels, lse,
        inverse_count, dlogits);
  });
}

}  // namespace modrwkv
