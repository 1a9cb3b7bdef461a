// Walks parameters and submodules.
#include "models/module.h"

#include <algorithm>

#include "core/error.h"
#include "core/files.h"

namespace modrwkv {

void Module::add_parameter(const std::string& name, Variable& member, Tensor value) {
  member = Variable(std::move(value), true);
  own_.push_back({name, &member});
}

void Module::add_module(const std::string& prefix, Module& child) { children_.emplace_back(prefix, &child); }

void Module::collect(const std::string& prefix, std::vector<Parameter>& all) const {
  for (const Parameter& p : own_) all.push_back({prefix + p.name, p.variable});
  for (const auto& [name, child] : children_) child->collect(prefix + name, all);
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> all;
  collect("", all);
  std::sort(all.begin(), all.end(), [](const Parameter& a, const Parameter& b) { return a.name < b.name; });
  for (size_t i = 1; i < all.size(); ++i) {
    require(all[i].name != all[i - 1].name, "model: two parameters are called {}", all[i].name);
  }
  return all;
}

int64_t Module::parameter_count() const {
  int64_t n = 0;
  for (const Parameter& p : parameters()) n += p.variable->value().numel();
  return n;
}

void Module::to(Device device, DType dtype) {
  const MemoryScope scope(MemoryTag::parameters);
  for (const Parameter& p : parameters()) p.variable->set_value(p.variable->value().to(dtype).to(device));
}

void Module::set_requires_grad(bool on) {
  for (const Parameter& p : parameters()) p.variable->set_requires_grad(on);
}

void Module::load(const std::vector<NamedTensor>& tensors, const std::string& file) {
  const std::vector<Parameter> all = parameters();
  const auto find = [&](const std::string& name) {
    const auto at = std::lower_bound(all.begin(), all.end(), name,
                                     [](const Parameter& p, const std::string& n) { return p.name < n; });
    return at != all.end() && at->name == name ? &*at : nullptr;
  };
  size_t weights = 0;
  for (const NamedTensor& t : tensors) {
    if (t.buffer) continue;
    ++weights;
    const Parameter* p = find(t.name);
    require(p != nullptr, "{}: tensor {} does not belong to this model", file, t.name);
    require(p->variable->shape() == t.tensor.shape(), "{}: tensor {} is {}, the model expects {}", file, t.name,
            t.tensor.shape().str(), p->variable->shape().str());
    Tensor value = p->variable->value();
    value.copy_from(t.tensor.to(value.dtype()));
  }
  if (weights == all.size()) return;
  for (const Parameter& p : all) {
    require(std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == p.name; }),
            "{}: tensor {} is missing", file, p.name);
  }
  fail("{}: a tensor is there twice", file);
}

std::vector<NamedTensor> Module::named_tensors() const {
  std::vector<NamedTensor> all;
  for (const Parameter& p : parameters()) all.push_back({p.name, p.variable->value()});
  return all;
}

std::string model_file_of(const std::string& path) {
  if (!is_directory(path)) return path;
  const std::string file = join_path(path, "model.h5");
  require(path_exists(file), "{}: holds no model.h5; a run writes it with its first evaluation", path);
  return file;
}

}  // namespace modrwkv
