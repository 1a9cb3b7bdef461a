// concat_time and slice_time are one copy in four roles: checks, the CPU loop and the tape.
#include "ops/time_axis.h"

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

// Parallel over samples.
void copy_time(const Tensor& from, int64_t offset, Tensor& to, int64_t begin, int64_t end) {
  const int64_t B = to.size(0), C = to.size(2), T_from = from.size(1), T_to = to.size(1);
  const int64_t low = std::clamp(offset, begin, end),
                high = std::clamp(offset + T_from, low, end);  // steps that exist
  for_cpu_float("time_axis", to.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, 1 + (1 << 15) / ((end - begin) * C + 1), [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        T* y = to.data<T>() + b * T_to * C;
        std::fill(y + begin * C, y + low * C, T(0));
        if (low < high)
          std::copy_n(from.data<T>() + (b * T_from + low - offset) * C, (high - low) * C, y + low * C);
        std::fill(y + high * C, y + end * C, T(0));
      }
    });
  });
}

}  // namespace cpu

void copy_time(const Tensor& from, int64_t offset, Tensor& to, int64_t begin, int64_t end) {
  run(to.device(), cpu::copy_time, cuda::copy_time, from, offset, to, begin, end);
}

}  // namespace

Variable concat_time(const std::vector<Variable>& inputs) {
  require(!inputs.empty(), "concat_time: no inputs");
  int64_t steps = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    require(inputs[i].defined() && inputs[i].shape().rank() == 3,
            "concat_time: input {} is {}, expected [B, T, C]", i,
            inputs[i].defined() ? inputs[i].value().str() : "undefined");
    const Variable &x = inputs[i], &first = inputs[0];
    require(x.size(0) == first.size(0) && x.size(2) == first.size(2) && x.dtype() == first.dtype() &&
                x.device() == first.device(),
            "concat_time: input 0 is {}, input {} is {}; all but the time axis must agree", first.value().str(),
            i, x.value().str());
    steps += x.size(1);
  }
  const Tensor& like = inputs[0].value();
  Tensor y = Tensor::empty({like.size(0), steps, like.size(2)}, like.dtype(), like.device());
  std::vector<int64_t> starts;
  int64_t start = 0;
  for (const Variable& x : inputs) {
    copy_time(x.value(), start, y, start, start + x.size(1));
    starts.push_back(start);
    start += x.size(1);
  }
  return record("concat_time", y, inputs, [starts](Grads& g) {
    for (size_t i = 0; i < starts.size(); ++i) {
      if (!g.wants(int(i))) continue;
      Tensor dx = g.write(int(i));
      copy_time(g.out(), -starts[i], dx, 0, dx.size(1));
    }
  });
}

Variable slice_time(const Variable& x, int64_t begin, int64_t end) {
  require(x.shape().rank() == 3, "slice_time: input is {}, expected [B, T, C]", x.value().str());
  require(0 <= begin && begin <= end && end <= x.size(1), "slice_time: steps [{}, {}) of input {}", begin, end,
          x.value().str());
  Tensor y = Tensor::empty({x.size(0), end - begin, x.size(2)}, x.dtype(), x.device());
  copy_time(x.value(), -begin, y, 0, end - begin);
  return record("slice_time", y, {x}, [begin](Grads& g) {
    Tensor dx = g.write(0);
    copy_time(g.out(), begin, dx, 0, dx.size(1));
  });
}

}  // namespace modrwkv
