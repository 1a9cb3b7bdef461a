// A part of a model: owns named parameters and submodules. Names are those of the checkpoint.
#pragma once
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "models/weights.h"

namespace modrwkv {

struct Parameter {
  std::string name;
  Variable* variable = nullptr;
};

class Module {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Every parameter below this module, names prefixed ("blocks.0.att." + "w1"), sorted by name.
  std::vector<Parameter> parameters() const;
  int64_t parameter_count() const;
  // Converts and moves every parameter; floating types only.
  void to(Device device, DType dtype);
  void set_requires_grad(bool on);
  // Copies tensors into the parameters of the same names. A missing, surplus or differently shaped tensor is
  // refused by name, buffers are left alone; `file` begins the message.
  void load(const std::vector<NamedTensor>& tensors, const std::string& file);
  std::vector<NamedTensor> named_tensors() const;  // the parameters' values

 protected:
  Module() = default;
  // The member must live as long as the module.
  void add_parameter(const std::string& name, Variable& member, Tensor value);
  void add_module(const std::string& prefix, Module& child);

 private:
  void collect(const std::string& prefix, std::vector<Parameter>& all) const;
  std::vector<Parameter> own_;
  std::vector<std::pair<std::string, Module*>> children_;
};

// PATH itself, or PATH/model.h5 where it is a run folder.
std::string model_file_of(const std::string& path);

}  // namespace modrwkv
