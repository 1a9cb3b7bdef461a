// Instance norm of a series and its inverse: CPU code, checks and the tape.
#include "ops/instance_norm.h"

#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

int64_t grain(int64_t row_size) { return 1 + (1 << 14) / (row_size + 1); }

namespace cpu {

void instance_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& mean, Tensor& std) {
  const int64_t B = x.size(0), L = x.size(1);
  for_cpu_float("instance_norm", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, grain(L), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* px = x.data<T>() + r * L;
        T* py = y.data<T>() + r * L;
        T sum = 0, square = 0;
        for (int64_t i = 0; i < L; ++i) sum += px[i];
        const T m = sum / T(L);
        for (int64_t i = 0; i < L; ++i) square += (px[i] - m) * (px[i] - m);
        const T s = std::sqrt(square / T(L) + T(eps)), inverse = T(1) / s;
        for (int64_t i = 0; i < L; ++i) py[i] = (px[i] - m) * inverse;
        mean.data<T>()[r] = m;
        std.data<T>()[r] = s;
      }
    });
  });
}

// d mean / dx = 1 / L and d std / dx = y / L, so
// dx = (dy - average(dy) - y average(dy y)) / std + (dmean + y dstd) / L.
void instance_norm_backward(const Tensor& dy, const Tensor& dmean, const Tensor& dstd, const Tensor& x,
                            const Tensor& mean, const Tensor& std, Tensor& dx) {
  const int64_t B = x.size(0), L = x.size(1);
  for_cpu_float("instance_norm", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, grain(L), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* px = x.data<T>() + r * L;
        T* pdx = dx.data<T>() + r * L;
        const T m = mean.data<T>()[r], inverse = T(1) / std.data<T>()[r];
        T constant = dmean.defined() ? dmean.data<T>()[r] : T(0);  // dx = dy / std + (constant + y slope) / L
        T slope = dstd.defined() ? dstd.data<T>()[r] : T(0);
        if (!dy.defined()) {
          for (int64_t i = 0; i < L; ++i) pdx[i] = (constant + (px[i] - m) * inverse * slope) / T(L);
          continue;
        }
        const T* pdy = dy.data<T>() + r * L;
        T sum = 0, sum_y = 0;
        for (int64_t i = 0; i < L; ++i) {
          sum += pdy[i];
          sum_y += pdy[i] * (px[i] - m) * inverse;
        }
        constant -= sum * inverse;
        slope -= sum_y * inverse;
        for (int64_t i = 0; i < L; ++i) {
          pdx[i] = pdy[i] * inverse + (constant + (px[i] - m) * inverse * slope) / T(L);
        }
      }
    });
  });
}

void multiply_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out) {
  const int64_t B = x.size(0), H = x.size(1);
  for_cpu_float("denormalise", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, grain(H), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T s = std.data<T>()[r], m = shift.defined() ? shift.data<T>()[r] : T(0);
        for (int64_t i = r * H; i < (r + 1) * H; ++i) out.data<T>()[i] = x.data<T>()[i] * s + m;
      }
    });
  });
}

void divide_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out) {
  const int64_t B = x.size(0), H = x.size(1);
  for_cpu_float("normalise_with", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, grain(H), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T s = std.data<T>()[r], m = shift.defined() ? shift.data<T>()[r] : T(0);
        for (int64_t i = r * H; i < (r + 1) * H; ++i) out.data<T>()[i] = (x.data<T>()[i] - m) / s;
      }
    });
  });
}

void row_sums(const Tensor& dy, const Tensor& y, Tensor& dmean, Tensor& dstd) {
  const int64_t B = dy.size(0), H = dy.size(1);
  for_cpu_float("denormalise", dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(B, grain(H), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* g = dy.data<T>() + r * H;
        T sum = 0, sum_y = 0;
        for (int64_t i = 0; i < H; ++i) sum += g[i];
        if (dmean.defined()) dmean.data<T>()[r] = sum;
        if (!dstd.defined()) continue;
        for (int64_t i = 0; i < H; ++i) sum_y += g[i] * y.data<T>()[r * H + i];
        dstd.data<T>()[r] = sum_y;
      }
    });
  });
}

}  // namespace cpu

DType statistics_type(DType t) { return t == DType::bf16 ? DType::f32 : t; }

void check_statistics(const char* op, const Variable& x, const Variable& mean, const Variable& std) {
  require(x.shape().rank() == 2, "{}: input is {}, expected [B, H]", op, x.value().str());
  for (const Variable* p : {&mean, &std}) {
    require(
        p->shape() == Shape{x.size(0)} && p->dtype() == statistics_type(x.dtype()) && p->device() == x.device(),
        "{}: input is {}, {} is {}, expected {} [{}] on {}", op, x.value().str(), p == &mean ? "mean" : "std",
        p->value().str(), name_of(statistics_type(x.dtype())), x.size(0), to_string(x.device()));
  }
}

}  // namespace

InstanceNorm instance_norm(const Variable& x, double eps) {
  require(x.shape().rank() == 2 && x.size(1) > 0, "instance_norm: input is {}, expected [B, L] with L > 0",
          x.value().str());
  Tensor y = Tensor::empty_like(x.value());
  Tensor mean = Tensor::empty({x.size(0)}, statistics_type(x.dtype()), x.device()),
         std = Tensor::empty_like(mean);
  run(x.device(), cpu::instance_norm_forward, cuda::instance_norm_forward, x.value(), eps, y, mean, std);
  const std::vector<Variable> out =
      record("instance_norm", {y, mean, std}, {x}, [x = x.value(), mean, std](Grads& g) {
        const Tensor none;
        Tensor dx = g.write(0);
        run(x.device(), cpu::instance_norm_backward, cuda::instance_norm_backward,
            g.has_out(0) ? g.out(0) : none, g.has_out(1) ? g.out(1) : none, g.has_out(2) ? g.out(2) : none, x,
            mean, std, dx);
      });
  return {out[0], out[1], out[2]};
}

Variable denormalise(const Variable& y, const Variable& mean, const Variable& std) {
  check_statistics("denormalise", y, mean, std);
  Tensor out = Tensor::empty_like(y.value());
  run(y.device(), cpu::multiply_rows, cuda::multiply_rows, y.value(), std.value(), mean.value(), out);
  const Tensor saved = std.requires_grad() ? y.value() : Tensor();
  return record("denormalise", out, {y, mean, std}, [saved, std = std.value()](Grads& g) {
    if (g.wants(0)) {
      Tensor dy = g.write(0);
      run(dy.device(), cpu::multiply_rows, cuda::multiply_rows, g.out(), std, Tensor(), dy);
    }
    if (!g.wants(1) && !g.wants(2)) return;
    Tensor dmean = g.wants(1) ? g.write(1) : Tensor(), dstd = g.wants(2) ? g.write(2) : Tensor();
    run(std.device(), cpu::row_sums, cuda::row_sums, g.out(), saved, dmean, dstd);
  });
}

Variable normalise_with(const Variable& target, const Variable& mean, const Variable& std) {
  check_statistics("normalise_with", target, mean, std);
  Tensor out = Tensor::empty_like(target.value());
  run(target.device(), cpu::divide_rows, cuda::divide_rows, target.value(), std.value(), mean.value(), out);
  return record("normalise_with", out, {target}, [std = std.value()](Grads& g) {
    Tensor dtarget = g.write(0);
    run(dtarget.device(), cpu::divide_rows, cuda::divide_rows, g.out(), std, Tensor(), dtarget);
  });
}

}  // namespace modrwkv
