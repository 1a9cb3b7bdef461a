// End of the time mix on CUDA. A "head" is the n channels of one head of one token.
#include "ops/time_mix_output.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kWarps = 4;              // heads of a block in the forward
constexpr int kTokensPerPartial = 16;  // tokens of a block in the backward

template <class T>
struct Inputs {
  const T *y, *r, *k, *v, *g, *r_k, *weight, *bias;
};
template <class T>
struct Gradients {  // null: not wanted
  T *y, *r, *k, *v, *g;
};

// One warp owns a head and reads y three times, the rest once or twice, from L1 after the first. Read 5 n elements, write n and 8
// bytes; 16 FLOPs an element.
template <class T>
__global__ void time_mix_output_forward_kernel(Inputs<T> in, T* out, float* mean, float* rstd, int64_t rows, int n, int heads, float eps) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, at = row * n;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const int64_t first = row % heads * n;
  float sum = 0, bonus = 0, square = 0;
  for (int i = lane; i < n; i += 32) {
    sum += to_float(in.y[at + i]);
    bonus += to_float(in.r[at + i]) * to_float(in.k[at + i]) * to_float(in.r_k[first + i]);
  }
  const float m = simt::warp_sum(sum) / n;
  bonus = simt::warp_sum(bonus);
  for (int i = lane; i < n; i += 32) {
    const float d = to_float(in.y[at + i]) - m;
    square += d * d;
  }
  const float s = 1.0f / sqrtf(simt::warp_sum(square) / n + eps);
  for (int i = lane; i < n; i += 32) {
    const float h = (to_float(in.y[at + i]) - m) * s;
    const float o = h * to_float(in.weight[first + i]) + to_float(in.bias[first + i]) + bonus * to_float(in.v[at + i]);
    out[at + i] = from_float<T>(o * to_float(in.g[at + i]));
  }
  if (lane == 0) {
    mean[row] = m;
    rstd[row] = s;
  }
}

// One warp owns one head of kTokensPerPartial tokens and the three sums of each of its channels, in shared memory, each read and
// written by one lane only. Formulas in the .cpp. Read 6 n, write 5 n elements a token; 45 FLOPs an element.
template <class T>
__global__ void time_mix_output_backward_kernel(Inputs<T> in, const T* dout, const float* mean, const float* rstd, Gradients<T> d,
                                                float* dr_k, float* dweight, float* dbias, int64_t tokens, int n, int heads) {
  const int lane = threadIdx.x, head = blockIdx.x;
  const int64_t first = int64_t(head) * n, channels = int64_t(heads) * n;
  float* sum_rk = simt::dynamic_shared<float>();
  float* sum_w = sum_rk + n;
  float* sum_b = sum_w + n;
  for (int i = lane; i < n; i += 32) sum_rk[i] = sum_w[i] = sum_b[i] = 0;
  const int64_t begin = int64_t(blockIdx.y) * kTokensPerPartial, end = min(begin + kTokensPerPartial, tokens);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = t * channels + first;
    const float m = mean[t * heads + head], s = rstd[t * heads + head];
    float bonus = 0, ds = 0, sum_q = 0, sum_qh = 0;
    for (int i = lane; i < n; i += 32) {
      const float dv = to_float(dout[at + i]) * to_float(in.g[at + i]), q = dv * to_float(in.weight[first + i]);
      bonus += to_float(in.r[at + i]) * to_float(in.k[at + i]) * to_float(in.r_k[first + i]);
      ds += dv * to_float(in.v[at + i]);
      sum_q += q;
      sum_qh += q * (to_float(in.y[at + i]) - m) * s;
    }
    bonus = simt::warp_sum(bonus);
    ds = simt::warp_sum(ds);
    const float mean_q = simt::warp_sum(sum_q) / n;
    const float mean_qh = simt::warp_sum(sum_qh) / n;
    for (int i = lane; i < n; i += 32) {
      const float go = to_float(dout[at + i]), dv = go * to_float(in.g[at + i]), h = (to_float(in.y[at + i]) - m) * s;
      const float w = to_float(in.weight[first + i]), rk = to_float(in.r_k[first + i]);
      const float r = to_float(in.r[at + i]), k = to_float(in.k[at + i]);
      if (d.g) d.g[at + i] = from_float<T>(go * (h * w + to_float(in.bias[first + i]) + bonus * to_float(in.v[at + i])));
      if (d.v) d.v[at + i] = from_float<T>(bonus * dv);
      if (d.r) d.r[at + i] = from_float<T>(ds * k * rk);
      if (d.k) d.k[at + i] = from_float<T>(ds * r * rk);
      if (d.y) d.y[at + i] = from_float<T>(s * (dv * w - mean_q - h * mean_qh));
      sum_rk[i] += ds * r * k;
      sum_w[i] += dv * h;
      sum_b[i] += dv;
    }
  }
  for (int i = lane; i < n; i += 32) {
    const int64_t to = blockIdx.y * channels + first + i;
    dr_k[to] = sum_rk[i];
    dweight[to] = sum_w[i];
    dbias[to] = sum_b[i];
  }
}

template <class T>
Inputs<T> pointers(const TimeMixOutput& in) {
  return {in.y.data<T>(), in.r.data<T>(),   in.k.data<T>(),      in.v.data<T>(),
          in.g.data<T>(), in.r_k.data<T>(), in.weight.data<T>(), in.bias.data<T>()};
}

}  // namespace

void time_mix_output_forward(TimeMixOutput& in, double eps, Tensor& out) {
  const int64_t rows = in.mean.numel(), heads = in.r_k.size(0), n = in.r_k.size(1);
  if (rows == 0) return;
  for_cuda_float("time_mix_output", out.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<time_mix_output_forward_kernel<T>>({unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()}, pointers<T>(in),
                                                    out.data<T>(), in.mean.data<float>(), in.rstd.data<float>(), rows, int(n), int(heads),
                                                    float(eps));
  });
}

void time_mix_output_backward(const TimeMixOutput& in, const Tensor& dout, TimeMixOutputGradients& d) {
  const int64_t heads = in.r_k.size(0), n = in.r_k.size(1), channels = heads * n, tokens = in.mean.numel() / heads;
  if (channels == 0) return;
  const int64_t parts = std::max<int64_t>(1, ceil_div(tokens, kTokensPerPartial));
  std::array<Tensor, 3> partial;
  {
    const MemoryScope scope(MemoryTag::workspace);
    for (Tensor& p : partial) p = Tensor::empty({parts, channels}, DType::f32, dout.device());
  }
  for_cuda_float("time_mix_output", dout.dtype(), [&](auto t) {
    using T = decltype(t);
    const auto place = [&](size_t i) { return d[i].defined() ? d[i].data<T>() : nullptr; };
    const Gradients<T> out{place(0), place(1), place(2), place(3), place(4)};
    const dim3 grid{unsigned(heads), unsigned(parts)};
    simt::launch<time_mix_output_backward_kernel<T>>({grid, 32, size_t(3 * n) * sizeof(float), current_stream()}, pointers<T>(in),
                                                     dout.data<T>(), in.mean.data<float>(), in.rstd.data<float>(), out,
                                                     partial[0].data<float>(), partial[1].data<float>(), partial[2].data<float>(), tokens,
                                                     int(n), int(heads));
  });
  for (size_t i = 0; i < 3; ++i) {
    if (d[5 + i].defined()) column_sum(partial[i], d[5 + i]);
  }
}

}  // namespace modrwkv::cuda
