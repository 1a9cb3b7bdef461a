// Token shift: CPU code, checks and the tape.
#include "ops/token_shift.h"

#include "core/error.h"
#include "ops/row_chunks.h"

namespace modrwkv {
namespace {

namespace cpu {

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Finds the row that stands before a step.
template <class T>
struct Before {
  const T* x;
  const T* previous;  // null: zeros
  const uint8_t* reset;
  const T* zeros;
  int64_t steps, channels;
  const T* operator()(int64_t row) const {
    if (reset != nullptr && reset[row] != 0) return zeros;
    if (row % steps != 0) return x + (row - 1) * channels;
    return previous != nullptr ? previous + row / steps * channels : zeros;
  }
};

void token_shift_forward(const Tensor& x, const Tensor& previous, const std::vector<Tensor>& mixes,
                         const Tensor& reset, std::vector<Tensor>& y) {
  const int64_t steps = x.size(1), channels = x.size(2), rows = x.size(0) * steps;
  for_cpu_float("token_shift", x.dtype(), [&](auto t) {
    using T = decltype(t);
    const std::vector<T> zeros(size_t(channels), T(0));
    const Before<T> before{
        x.data<T>(), data_or_null<T>(previous), data_or_null<uint8_t>(reset), zeros.data(), steps, channels};
    parallel_for(rows, 1 + (1 << 14) / (channels * int64_t(mixes.size()) + 1), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* px = x.data<T>() + r * channels;
        const T* last = before(r);
        for (size_t i = 0; i < mixes.size(); ++i) {
          const T* mix = mixes[i].data<T>();
          T* py = y[i].data<T>() + r * channels;
          for (int64_t c = 0; c < channels; ++c) py[c] = px[c] + (last[c] - px[c]) * mix[c];
        }
      }
    });
  });
}

// With m[t] = sum over i of dy_i[t] mix_i: dx[t] = sum of dy_i[t] - m[t] + m[t+1], without the last term where
// step t+1 does not look at row t; dprevious = m[0]; dmix_i = sum over rows of dy_i (before - x).
void token_shift_backward(const std::vector<Tensor>& dy, const Tensor& x, const Tensor& previous,
                          const std::vector<Tensor>& mixes, const Tensor& reset, Tensor& dx, Tensor& dprevious,
                          std::vector<Tensor>& dmixes) {
  size_t first = 0;  // output that has a gradient
  while (!dy[first].defined()) ++first;
  const int64_t steps = dy[first].size(1), channels = dy[first].size(2), rows = dy[first].size(0) * steps;
  for_cpu_float("token_shift", dy[first].dtype(), [&](auto t) {
    using T = decltype(t);
    const std::vector<T> zeros(size_t(channels), T(0));
    const uint8_t* cut = data_or_null<uint8_t>(reset);
    const Before<T> before{data_or_null<T>(x), data_or_null<T>(previous), cut, zeros.data(), steps, channels};
    if (dprevious.defined() && steps == 0) dprevious.fill(0);
    for_row_chunks<T>(rows, channels * int64_t(mixes.size()), dmixes,
                      [&](int64_t begin, int64_t end, const ChunkSums<T>& sums) {
                        for (int64_t r = begin; r < end; ++r) {
                          const bool seen =
                              (r + 1) % steps != 0 && (cut == nullptr || cut[r + 1] == 0);  // by the next step
                          for (size_t i = first; i < mixes.size(); ++i) {
                            if (!dy[i].defined()) continue;
                            const T* mix = mixes[i].data<T>();
                            const T* now = dy[i].data<T>() + r * channels;
                            const T* next = seen ? now + channels : zeros.data();
                            if (dx.defined()) {
                              T* to = dx.data<T>() + r * channels;
                              if (i == first) {
                                for (int64_t c = 0; c < channels; ++c)
                                  to[c] = now[c] + (next[c] - now[c]) * mix[c];
                              } else {
                                for (int64_t c = 0; c < channels; ++c)
                                  to[c] += now[c] + (next[c] - now[c]) * mix[c];
                              }
                            }
                            if (dprevious.defined() && r % steps == 0) {
                              T* to = dprevious.data<T>() + r / steps * channels;
                              if (i == first) std::fill(to, to + channels, T(0));
                              if (cut == nullptr || cut[r] == 0) {
                                for (int64_t c = 0; c < channels; ++c) to[c] += now[c] * mix[c];
                              }
                            }
                            if (sums[i] != nullptr) {
                              const T* px = x.data<T>() + r * channels;
                              const T* last = before(r);
                              T* sum = sums[i];
                              for (int64_t c = 0; c < channels; ++c) sum[c] += now[c] * (last[c] - px[c]);
                            }
                          }
                        }
                      });
  });
}

}  // namespace cpu

void check(const Variable& x, const Variable& previous, const std::vector<Variable>& mixes,
           const Tensor& reset) {
  const Shape& s = x.shape();
  require(s.rank() == 3, "token_shift: input is {}, expected [B, T, C]", x.value().str());
  require(!previous.defined() || (previous.shape() == Shape{s[0], s[2]} && previous.dtype() == x.dtype() &&
                                  previous.device() == x.device()),
          "token_shift: input is {}, previous is {}, expected {} [{}, {}]", x.value().str(),
          previous.defined() ? previous.value().str() : "", name_of(x.dtype()), s[0], s[2]);
  require(!mixes.empty() && mixes.size() <= size_t(kMaxMixes), "token_shift: {} mixes, expected 1 to {}",
          mixes.size(), kMaxMixes);
  for (size_t i = 0; i < mixes.size(); ++i) {
    const Variable& m = mixes[i];
    require((m.shape() == Shape{s[2]} || m.shape() == Shape{1, 1, s[2]}) && m.dtype() == x.dtype() &&
                m.device() == x.device(),
            "token_shift: input is {}, mix {} is {}, expected {} [{}]", x.value().str(), i, m.value().str(),
            name_of(x.dtype()), s[2]);
  }
  require(!reset.defined() || (reset.shape() == Shape{s[0], s[1]} && reset.dtype() == DType::u8 &&
                               reset.device() == x.device()),
          "token_shift: input is {}, reset is {}, expected u8 [{}, {}]", x.value().str(),
          reset.defined() ? reset.str() : "", s[0], s[1]);
}

}  // namespace

std::vector<Variable> token_shift(const Variable& x, const Variable& previous,
                                  const std::vector<Variable>& mixes, const Tensor& reset) {
  check(x, previous, mixes, reset);
  std::vector<Tensor> mix, y;
  std::vector<Variable> inputs = {x, previous};
  bool learns = false;  // a mix wants a gradient
  for (const Variable& m : mixes) {
    mix.push_back(m.value());
    y.push_back(Tensor::empty_like(x.value()));
    inputs.push_back(m);
    learns |= m.requires_grad();
  }
  const Tensor last = previous.defined() ? previous.value() : Tensor();
  run(x.device(), cpu::token_shift_forward, cuda::token_shift_forward, x.value(), last, mix, reset, y);
  return record("token_shift", y, inputs,
                [x = learns ? x.value() : Tensor(), last = learns ? last : Tensor(), mix, reset](Grads& g) {
                  std::vector<Tensor> dy(mix.size()), dmix(mix.size());
                  for (int i = 0; i < int(mix.size()); ++i) {
                    if (g.has_out(i)) dy[size_t(i)] = g.out(i);
                    if (g.has_out(i) && g.wants(2 + i)) dmix[size_t(i)] = g.write_param(2 + i);
                  }
                  Tensor dx = g.wants(0) ? g.write(0) : Tensor(), dlast = g.wants(1) ? g.write(1) : Tensor();
                  run(mix[0].device(), cpu::token_shift_backward, cuda::token_shift_backward, dy, x, last, mix,
                      reset, dx, dlast, dmix);
                });
}

}  // namespace modrwkv
