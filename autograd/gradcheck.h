// Compares an op's gradients with central differences in f64.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace modrwkv {

using VariableFunction = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

struct GradCheck {
  bool ok = true;
  std::string worst;  // "input 1 element 7: analytic 0.25, numeric 0.31"
};

// The outputs are weighted by fixed random numbers (from `seed`) and summed; every element of every f64 input
// that requires a gradient is moved by +-eps. An element passes if |analytic - numeric| <= atol + rtol *
// |numeric|.
GradCheck gradcheck(const VariableFunction& fn, const std::vector<Variable>& inputs, uint64_t seed = 1,
                    double eps = 1e-6, double atol = 1e-5, double rtol = 1e-3);

}  // namespace modrwkv
