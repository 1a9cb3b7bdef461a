// What every op's test does, in four calls. An op under test is a function from Variables to Variables; its
// inputs are f64 tensors on the CPU (differentiated) or integer tensors (passed on as they are).
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/variable.h"

namespace modrwkv::testing {

// Uniform in (-1, 1) * scale, f64; the same numbers for the same seed.
Tensor random_tensor(const Shape& shape, uint64_t seed, double scale = 1.0);

// (1) Golden. tests/goldens/FILE.h5 holds, for a case, CASE.in0.. (inputs), CASE.out0.. (outputs), CASE.dout0..
// (given gradients of the outputs; absent: the output is not differentiated) and CASE.din0.. (gradients of the
// inputs; absent: not differentiated), made in float64 by tools/goldens/FILE.py. Compares the f64 CPU code to
// 1e-11 and the f32 CPU code to f32_tolerance, both as RMS error over RMS of the golden.
void expect_golden(const std::string& file, const std::string& name, const VariableFunction& fn,
                   double f32_tolerance = 2e-6);

// (2) Finite differences in f64.
void expect_gradients(const VariableFunction& fn, const std::vector<Tensor>& inputs, uint64_t seed = 1);

// (3) CUDA (a GPU, or the emulator in every thread order) in f32 and bf16 against the CPU in f64 on the same
// inputs, rounded to that type. The tolerance of each tensor is twice the error of the f32 CPU code, rounded to
// that type, plus a floor of 8 eps (f32) or half an eps (bf16); for bf16 times `roundings`, the number of
// intermediate results that the op keeps in bf16. `fixed` inputs (by position) are not differentiated, `wide`
// ones stay f32 in a bf16 run. `unaligned`: inputs and gradients start one element behind a 16-byte boundary,
// so that kernels take their scalar path.
struct CudaTest {
  bool f32 = true, bf16 = true, unaligned = false;
  double roundings = 1;
  std::vector<size_t> fixed = {}, wide = {};
};
void expect_cuda_equals_cpu(const VariableFunction& fn, const std::vector<Tensor>& inputs,
                            const CudaTest& options = {});

// (5) fn() throws an Error whose message contains `text`.
void expect_error(const std::function<void()>& fn, const std::string& text);

// RMS(a - b) / RMS(b), over f64 copies; infinity when a holds NaN where b does not.
double relative_error(const Tensor& a, const Tensor& b);

}  // namespace modrwkv::testing
