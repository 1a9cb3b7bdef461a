// Reverse-mode differentiation, define by run. A Variable is a value, its gradient and the node that made it;
// ops record nodes; backward() walks them in reverse order of creation and is the only place where gradients
// are added up.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

struct Node;
struct VariableState;

class Variable {
 public:
  Variable() = default;  // undefined: an optional input that is absent
  explicit Variable(Tensor value, bool requires_grad = false);

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const;
  void set_value(Tensor value);  // of a leaf
  bool requires_grad() const;
  void set_requires_grad(bool on);  // of a leaf

  const Shape& shape() const { return value().shape(); }
  int64_t size(int axis) const { return value().size(axis); }
  DType dtype() const { return value().dtype(); }
  Device device() const { return value().device(); }

  // The gradient of a leaf, undefined before any backward. f32 for a bf16 leaf.
  Tensor grad() const;
  void zero_grad();                     // forgets it; costs nothing
  void set_grad_buffer(Tensor buffer);  // gradients of this leaf are kept here (a slice of a flat buffer)
  void on_grad_ready(
      std::function<void()> hook);  // called once a backward, when this leaf's gradient is complete

  Variable detach() const;  // the same value without history

 private:
  friend struct Engine;
  explicit Variable(std::shared_ptr<VariableState> state) : state_(std::move(state)) {}
  std::shared_ptr<VariableState> state_;
};

// What an op's backward function sees: gradients of its outputs, and places for the gradients of its inputs.
class Grads {
 public:
  // Gradient of output i, in the output's type and shape; zeros where nothing arrived.
  const Tensor& out(int i = 0);
  bool has_out(int i) const;
  bool wants(int input) const;
  // Memory for the gradient of an input; the op must write every element. The second form is for parameters
  // (weights, biases): it has the accumulation type, f32 where the parameter is bf16.
  Tensor write(int input);
  Tensor write_param(int input);
  // Hands over an existing tensor as the gradient of an input, e.g. a reshape of out(); it is not copied.
  void give(int input, Tensor gradient);

 private:
  friend struct Engine;
  Node* node_ = nullptr;
  struct Slot {
    Tensor tensor;
    bool owned = false;
  };
  std::vector<Slot> slots_;
  bool in_place_ = true;
  Tensor write_as(int input, DType type);
};

using BackwardFunction = std::function<void(Grads&)>;

// Records one op. Without any input that requires a gradient, or under NoGrad, the outputs have no history and
// `backward` is dropped. `name` must live for ever (a literal).
std::vector<Variable> record(const char* name, const std::vector<Tensor>& outputs,
                             const std::vector<Variable>& inputs, BackwardFunction backward);
Variable record(const char* name, const Tensor& output, const std::vector<Variable>& inputs,
                BackwardFunction backward);

// Will record() keep a node for these inputs? Ops ask before they save what only backward needs.
bool will_record(const std::vector<Variable>& inputs);

// d(sum of outputs * gradients) is added to the grad() of every leaf. The default gradient of a one-element
// output is 1. Saved tensors are freed on the way unless `retain` is set; a second pass over a freed graph is
// an error.
void backward(const Variable& output, bool retain = false);
void backward(const std::vector<Variable>& outputs, const std::vector<Tensor>& gradients, bool retain = false);

bool grad_enabled();
class NoGrad {  // scope in which nothing is recorded, on this thread
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  bool before_;
};

// Computes fn(inputs) without keeping what its backward needs, and computes it again during backward.
// `parameters` are the leaves that fn reads beside its inputs: they become inputs of the one recorded node, so
// that each is seen once a backward by its hooks. Random numbers are counter based, so the second run draws the
// same ones.
std::vector<Variable> checkpoint(const std::function<std::vector<Variable>(const std::vector<Variable>&)>& fn,
                                 const std::vector<Variable>& inputs, const std::vector<Variable>& parameters);

}  // namespace modrwkv
