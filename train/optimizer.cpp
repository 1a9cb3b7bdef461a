// Lays the flat buffers out and runs AdamW on them.
#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "ops/adamw.h"
#include "ops/grad_norm.h"

namespace modrwkv {
namespace {

constexpr int64_t kPad = 64;

bool ends_with(const std::string& s, const std::string& tail) {
  return s.size() >= tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0;
}

}  // namespace

int parameter_group(const std::string& name, const Shape& shape) {
  if (ends_with(name, "att.w0")) return 2;
  int axes = 0;
  for (int i = 0; i < shape.rank(); ++i) axes += shape[i] > 1;
  return ends_with(name, ".weight") && axes >= 2 ? 0 : 1;
}

Optimizer::Optimizer(Module& model, const OptimizerOptions& options)
    : options_(options), parameters_(model.parameters()) {
  require(!parameters_.empty(), "optimizer: the model has no parameters");
  const Device device = parameters_[0].variable->device();
  const DType type = parameters_[0].variable->dtype();
  const DType master_type = type == DType::f64 ? DType::f64 : DType::f32;
  int64_t total = 0;
  for (const Parameter& p : parameters_) {
    require(p.variable->dtype() == type && p.variable->device() == device,
            "optimizer: {} is {}, others are {} on {}", p.name, p.variable->value().str(), name_of(type),
            to_string(device));
    const int64_t count = p.variable->value().numel();
    entries_.push_back(
        {p.name, p.variable->shape(), total, count, parameter_group(p.name, p.variable->shape())});
    total += (count + kPad - 1) / kPad * kPad;
  }
  std::vector<uint8_t> groups(size_t(total / kPad), 255);
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    if (!parameters_[i].variable->requires_grad()) continue;  // frozen
    std::fill_n(groups.begin() + e.first / kPad, (e.count + kPad - 1) / kPad, uint8_t(e.group));
  }
  group_of_block_ = Tensor::from(groups, {total / kPad}).to(device);
  {
    const MemoryScope scope(MemoryTag::optimizer);
    m_ = Tensor::zeros({total}, master_type, device);
    v_ = Tensor::zeros({total}, master_type, device);
    if (options.average > 0) average_ = Tensor::zeros({total}, master_type, device);
    if (type == DType::bf16) master_ = Tensor::zeros({total}, master_type, device);
  }
  {
    const MemoryScope scope(MemoryTag::gradients);
    grad_ = Tensor::zeros({total}, master_type, device);
  }
  const MemoryScope scope(MemoryTag::parameters);
  weights_ = Tensor::zeros({total}, type, device);
  if (type != DType::bf16) master_ = weights_;
  for (size_t i = 0; i < entries_.size(); ++i) {
    Variable& p = *parameters_[i].variable;
    Tensor mine = view(weights_, entries_[i]);
    mine.copy_from(p.value());
    if (type == DType::bf16) view(master_, entries_[i]).copy_from(p.value());
    p.set_value(mine);
    p.set_grad_buffer(view(grad_, entries_[i]));
  }
  if (average_.defined()) average_.copy_from(master_);
}

Tensor Optimizer::view(const Tensor& flat, const Entry& e) const {
  return flat.slice(e.first, e.first + e.count).reshape(e.shape);
}

void Optimizer::zero_grad() {
  for (const Parameter& p : parameters_) p.variable->zero_grad();
}

Optimizer::Step Optimizer::step(double learning_rate) {
  for (size_t i = 0; i < entries_.size(); ++i) {  // what nothing flowed into has gradient zero
    if (!parameters_[i].variable->grad().defined()) view(grad_, entries_[i]).fill_bytes(0);
  }
  Step result;
  result.grad_norm = grad_norm(grad_, &group_of_block_);
  if (!std::isfinite(result.grad_norm)) {
    result.applied = false;
    return result;
  }
  const double factor = options_.clip > 0 ? clip_factor(result.grad_norm, options_.clip) : 1.0;
  const auto group = [&](double rate, double decay) {
    return AdamWGroup{rate, options_.beta1, options_.beta2, options_.eps, decay};
  };
  const std::vector<AdamWGroup> groups = {group(learning_rate, options_.weight_decay), group(learning_rate, 0),
                                          group(learning_rate * options_.w0_rate, 0)};
  const double t = double(steps_), average = std::min(options_.average, (t + 1) / (t + 10));
  adamw(master_, m_, v_, grad_, group_of_block_, groups, ++steps_, factor,
        weights_.same_storage(master_) ? nullptr : &weights_, average_.defined() ? &average_ : nullptr,
        average);
  return result;
}

void Optimizer::refresh_weights() {
  if (!weights_.same_storage(master_)) weights_.copy_from(master_);
}

void Optimizer::swap_average() {
  if (!average_.defined()) return;
  const Tensor trained = master_.clone();
  master_.copy_from(average_);
  average_.copy_from(trained);
  refresh_weights();
}

void Optimizer::restored(int64_t steps_done) {
  steps_ = steps_done;
  refresh_weights();
}

}  // namespace modrwkv
