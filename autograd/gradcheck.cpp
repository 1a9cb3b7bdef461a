// Central differences, one input element at a time.
#include "autograd/gradcheck.h"

#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace modrwkv {
namespace {

std::vector<Tensor> random_weights(const std::vector<Variable>& outputs, uint64_t seed) {
  std::vector<Tensor> weights;
  for (size_t i = 0; i < outputs.size(); ++i) {
    RandomStream random(seed, Purpose::test, 0, uint32_t(i));
    Tensor w = Tensor::empty(outputs[i].shape(), DType::f64);
    for (int64_t j = 0; j < w.numel(); ++j) w.data<double>()[j] = random.uniform(-1, 1);
    weights.push_back(w);
  }
  return weights;
}

double weighted_sum(const std::vector<Variable>& outputs, const std::vector<Tensor>& weights) {
  double sum = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const double* y = outputs[i].value().data<double>();
    const double* w = weights[i].data<double>();
    for (int64_t j = 0; j < weights[i].numel(); ++j) sum += y[j] * w[j];
  }
  return sum;
}

}  // namespace

GradCheck gradcheck(const VariableFunction& fn, const std::vector<Variable>& inputs, uint64_t seed, double eps,
                    double atol, double rtol) {
  std::vector<Variable> leaves;
  for (const Variable& v : inputs) {
    leaves.push_back(v.defined() ? Variable(v.value().clone(), v.requires_grad()) : Variable());
  }
  const std::vector<Variable> outputs = fn(leaves);
  const std::vector<Tensor> weights = random_weights(outputs, seed);
  std::vector<Variable> roots;
  std::vector<Tensor> gradients;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    gradients.push_back(weights[i]);
  }
  backward(roots, gradients);
  GradCheck result;
  double worst = -1;
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    require(leaves[i].dtype() == DType::f64 && !leaves[i].device().is_cuda(), "gradcheck: input {} is {}", i,
            leaves[i].value().str());
    const Tensor analytic = leaves[i].grad();
    double* x = leaves[i].value().data<double>();
    for (int64_t j = 0; j < leaves[i].value().numel(); ++j) {
      const NoGrad scope;
      const double before = x[j];
      x[j] = before + eps;
      const double up = weighted_sum(fn(leaves), weights);
      x[j] = before - eps;
      const double down = weighted_sum(fn(leaves), weights);
      x[j] = before;
      const double numeric = (up - down) / (2 * eps), a = analytic.defined() ? analytic.data<double>()[j] : 0.0;
      const double excess = std::fabs(a - numeric) - atol - rtol * std::fabs(numeric);
      if (!(excess <= 0)) result.ok = false;
      if (!(excess <= worst)) {
        worst = excess;
        result.worst = fmt::format("input {} element {}: analytic {:.9g}, numeric {:.9g}", i, j, a, numeric);
      }
    }
  }
  return result;
}

}  // namespace modrwkv
