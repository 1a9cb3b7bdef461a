// The tape and its engine.
#include "autograd/variable.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "core/error.h"

namespace modrwkv {

// Where the gradient of a node's input goes: an output of an earlier node, or a leaf, or nowhere.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<VariableState> leaf;
  Shape shape;
  DType dtype = DType::f32;
  Device device;
  bool wanted() const { return node != nullptr || leaf != nullptr; }
};

struct Node {
  struct Output {
    Shape shape;
    DType dtype;
    Device device;
    Tensor grad;
    bool grad_owned = false;
  };
  const char* name = "";
  uint64_t order = 0;    // of creation: inputs of a node are always older
  uint64_t visited = 0;  // the last backward that reached it
  std::vector<Edge> inputs;
  std::vector<Output> outputs;
  BackwardFunction backward;
  ~Node();
};

struct VariableState {
  Tensor value;
  bool requires_grad = false;
  std::shared_ptr<Node> node;
  int output = 0;
  Tensor grad;  // the buffer; its content counts only if has_grad
  bool has_grad = false;
  bool buffer_fixed = false;
  bool promised = false;  // the buffer is being written by the running op
  int pending = 0;        // edges of the running backward that still lead here
  std::function<void()> hook;
};

// A chain of a million nodes must not be destroyed by a million nested calls: a node that dies takes apart, in
// a loop, every node that only it keeps alive.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> dying;
  const auto take = [&](Node& n) {
    for (Edge& e : n.inputs) {
      if (e.node) dying.push_back(std::move(e.node));
    }
  };
  take(*this);
  while (!dying.empty()) {
    const std::shared_ptr<Node> n = std::move(dying.back());
    dying.pop_back();
    if (n.use_count() == 1) take(*n);
  }
}

namespace {

thread_local bool enabled = true;
std::atomic<uint64_t> next_order{1}, next_pass{1};

DType accumulation_type(DType t) { return t == DType::bf16 ? DType::f32 : t; }

}  // namespace

// ---------------------------------------------------------------- variables

Variable::Variable(Tensor value, bool requires_grad) : state_(std::make_shared<VariableState>()) {
  require(value.defined(), "Variable: undefined tensor");
  state_->value = std::move(value);
  state_->requires_grad = requires_grad;
}

const Tensor& Variable::value() const {
  require(defined(), "Variable: value of an undefined variable");
  return state_->value;
}

void Variable::set_value(Tensor value) {
  require(defined() && !state_->node, "Variable: set_value of a variable that is not a leaf");
  state_->value = std::move(value);
}

bool Variable::requires_grad() const { return defined() && state_->requires_grad; }

void Variable::set_requires_grad(bool on) {
  require(defined() && !state_->node, "Variable: set_requires_grad of a variable that is not a leaf");
  state_->requires_grad = on;
}

Tensor Variable::grad() const { return defined() && state_->has_grad ? state_->grad : Tensor(); }

void Variable::zero_grad() {
  if (!defined()) return;
  state_->has_grad = false;
  if (!state_->buffer_fixed) state_->grad = Tensor();
}

void Variable::set_grad_buffer(Tensor buffer) {
  require(buffer.shape() == shape() && buffer.dtype() == accumulation_type(dtype()),
          "Variable: gradient buffer {} for value {}", buffer.str(), value().str());
  state_->grad = std::move(buffer);
  state_->buffer_fixed = true;
  state_->has_grad = false;
}

void Variable::on_grad_ready(std::function<void()> hook) { state_->hook = std::move(hook); }

Variable Variable::detach() const { return Variable(value()); }

bool grad_enabled() { return enabled; }
NoGrad::NoGrad() : before_(enabled) { enabled = false; }
NoGrad::~NoGrad() { enabled = before_; }

bool will_record(const std::vector<Variable>& inputs) {
  return enabled &&
         std::any_of(inputs.begin(), inputs.end(), [](const Variable& v) { return v.requires_grad(); });
}

// ---------------------------------------------------------------- engine

struct Kept {
  Tensor gradient;
  bool owned = false;
};
using Redirect = std::unordered_map<VariableState*, Kept>;  // leaves whose gradient is returned instead of kept

struct Engine {
  static std::vector<Variable> record(const char* name, const std::vector<Tensor>& outputs,
                                      const std::vector<Variable>& inputs, BackwardFunction fn) {
    std::vector<Variable> result;
    result.reserve(outputs.size());
    for (const Tensor& t : outputs) result.emplace_back(t);
    if (!will_record(inputs)) return result;
    const auto node = std::make_shared<Node>();
    node->name = name;
    node->order = next_order++;
    node->backward = std::move(fn);
    for (const Variable& v : inputs) {
      Edge e;
      if (v.defined()) {
        e.shape = v.shape();
        e.dtype = v.dtype();
        e.device = v.device();
        if (v.state_->node) {
          e.node = v.state_->node;
          e.output = v.state_->output;
        } else if (v.requires_grad()) {
          e.leaf = v.state_;
        }
      }
      node->inputs.push_back(std::move(e));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      node->outputs.push_back({outputs[i].shape(), outputs[i].dtype(), outputs[i].device(), Tensor(), false});
      result[i].state_->requires_grad = true;
      result[i].state_->node = node;
      result[i].state_->output = int(i);
    }
    return result;
  }

  // Adds `t` to the gradient `sum`. `owned` tells whether anybody else may hold the tensor.
  static void accumulate(Tensor& sum, bool& sum_owned, const Tensor& t, bool owned, DType type) {
    if (!sum.defined()) {
      sum = t.to(type);
      sum_owned = owned || t.dtype() != type;
      return;
    }
    if (!sum_owned) {
      sum = sum.clone();
      sum_owned = true;
    }
    sum.add(t);
  }

  static void add_to_leaf(VariableState& leaf, const Tensor& t, bool owned) {
    if (leaf.has_grad) {
      leaf.grad.add(t);
    } else if (!leaf.buffer_fixed) {
      leaf.grad = owned && t.dtype() == accumulation_type(leaf.value.dtype()) ? t : Tensor();
      if (!leaf.grad.defined()) {
        const MemoryScope scope(MemoryTag::gradients);
        leaf.grad =
            Tensor::empty(leaf.value.shape(), accumulation_type(leaf.value.dtype()), leaf.value.device());
        leaf.grad.copy_from(t);
      }
    } else if (t.raw() != leaf.grad.raw()) {
      leaf.grad.copy_from(t);
    }
    leaf.has_grad = true;
  }

  static void run(const std::vector<Variable>& outputs, const std::vector<Tensor>& gradients, bool retain,
                  Redirect* redirect) {
    require(outputs.size() == gradients.size(), "backward: {} outputs, {} gradients", outputs.size(),
            gradients.size());
    const uint64_t pass = next_pass++;
    std::vector<std::shared_ptr<Node>> nodes;  // all that are reached; also the work list
    const auto reach = [&](const std::shared_ptr<Node>& n) {
      if (n->visited == pass) return;
      n->visited = pass;
      nodes.push_back(n);
    };
    std::vector<VariableState*> touched;
    const auto expect = [&](VariableState* leaf) {
      if (leaf->pending++ == 0) touched.push_back(leaf);
    };
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Variable& v = outputs[i];
      require(v.requires_grad(), "backward: output {} does not depend on anything that requires a gradient", i);
      Tensor g = gradients[i];
      if (!g.defined()) {
        require(v.value().numel() == 1, "backward: output {} is {}, a gradient must be given", i,
                v.value().str());
        g = Tensor::full(v.shape(), 1.0, v.dtype(), v.device());
      }
      require(g.shape() == v.shape() && g.device() == v.device(), "backward: output {} is {}, its gradient {}",
              i, v.value().str(), g.str());
      if (v.state_->node) {
        Node::Output& o = v.state_->node->outputs[size_t(v.state_->output)];
        accumulate(o.grad, o.grad_owned, g, false, o.dtype);
        reach(v.state_->node);
      } else {
        add_to_leaf(*v.state_, g, false);
      }
    }
    for (size_t i = 0; i < nodes.size(); ++i) {  // grows while it runs
      for (const Edge& e : nodes[i]->inputs) {
        if (e.node) reach(e.node);
        if (e.leaf) expect(e.leaf.get());
      }
    }
    std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->order > b->order; });
    try {
      for (std::shared_ptr<Node>& n : nodes) {
        step(*n, retain, redirect);
        n.reset();
      }
    } catch (...) {  // leave no half-counted state behind
      for (VariableState* leaf : touched) leaf->pending = 0, leaf->promised = false;
      throw;
    }
  }

  static void step(Node& n, bool retain, Redirect* redirect) {
    const bool reached =
        std::any_of(n.outputs.begin(), n.outputs.end(), [](const Node::Output& o) { return o.grad.defined(); });
    Grads g;
    g.node_ = &n;
    g.in_place_ = redirect == nullptr;
    g.slots_.resize(n.inputs.size());
    if (reached) {
      require(bool(n.backward),
              "backward: the graph of {} was freed by an earlier backward; pass retain = true there", n.name);
      const NoGrad scope;
      n.backward(g);
    }
    if (!retain) n.backward = nullptr;
    for (Node::Output& o : n.outputs) o.grad = Tensor();
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      Edge& e = n.inputs[i];
      const Grads::Slot& s = g.slots_[i];
      if (s.tensor.defined() && e.node) {
        Node::Output& o = e.node->outputs[size_t(e.output)];
        accumulate(o.grad, o.grad_owned, s.tensor, s.owned, o.dtype);
      }
      if (e.leaf == nullptr) continue;
      VariableState& leaf = *e.leaf;
      leaf.promised = false;
      const auto target = redirect ? redirect->find(&leaf) : Redirect::iterator();
      const bool elsewhere = redirect && target != redirect->end();
      if (s.tensor.defined() && elsewhere) {
        accumulate(target->second.gradient, target->second.owned, s.tensor, s.owned, s.tensor.dtype());
      } else if (s.tensor.defined()) {
        add_to_leaf(leaf, s.tensor, s.owned);
      }
      if (--leaf.pending == 0 && !elsewhere && leaf.hook) leaf.hook();
    }
  }

  static VariableState* state(const Variable& v) { return v.state_.get(); }
  static Edge& edge(Node& n, int input) { return n.inputs[size_t(input)]; }
};

const Tensor& Grads::out(int i) {
  Node::Output& o = node_->outputs[size_t(i)];
  if (!o.grad.defined()) {
    o.grad = Tensor::zeros(o.shape, o.dtype, o.device);
    o.grad_owned = true;
  }
  return o.grad;
}

bool Grads::has_out(int i) const { return node_->outputs[size_t(i)].grad.defined(); }
bool Grads::wants(int input) const { return node_->inputs[size_t(input)].wanted(); }
Tensor Grads::write(int input) { return write_as(input, node_->inputs[size_t(input)].dtype); }
Tensor Grads::write_param(int input) {
  return write_as(input, accumulation_type(node_->inputs[size_t(input)].dtype));
}

Tensor Grads::write_as(int input, DType type) {
  const Edge& e = node_->inputs[size_t(input)];
  Slot& slot = slots_[size_t(input)];
  require(e.wanted() && !slot.tensor.defined(), "{}: gradient of input {} is not wanted or was written already",
          node_->name, input);
  slot.owned = true;
  // A leaf with an empty buffer of its own is written in place.
  if (in_place_ && e.leaf && e.leaf->buffer_fixed && !e.leaf->has_grad && !e.leaf->promised &&
      e.leaf->grad.dtype() == type) {
    e.leaf->promised = true;
    return slot.tensor = e.leaf->grad;
  }
  const MemoryScope scope(MemoryTag::gradients);
  return slot.tensor = Tensor::empty(e.shape, type, e.device);
}

void Grads::give(int input, Tensor gradient) {
  const Edge& e = node_->inputs[size_t(input)];
  if (!e.wanted()) return;
  require(gradient.shape() == e.shape && gradient.device() == e.device,
          "{}: gradient {} for input {} of shape {}", node_->name, gradient.str(), input, e.shape.str());
  slots_[size_t(input)] = {std::move(gradient), false};
}

std::vector<Variable> record(const char* name, const std::vector<Tensor>& outputs,
                             const std::vector<Variable>& inputs, BackwardFunction backward) {
  return Engine::record(name, outputs, inputs, std::move(backward));
}

Variable record(const char* name, const Tensor& output, const std::vector<Variable>& inputs,
                BackwardFunction backward) {
  return Engine::record(name, {output}, inputs, std::move(backward))[0];
}

void backward(const Variable& output, bool retain) { Engine::run({output}, {Tensor()}, retain, nullptr); }

void backward(const std::vector<Variable>& outputs, const std::vector<Tensor>& gradients, bool retain) {
  Engine::run(outputs, gradients, retain, nullptr);
}

// ---------------------------------------------------------------- activation checkpointing

std::vector<Variable> checkpoint(const std::function<std::vector<Variable>(const std::vector<Variable>&)>& fn,
                                 const std::vector<Variable>& inputs, const std::vector<Variable>& parameters) {
  std::vector<Variable> all = inputs;
  all.insert(all.end(), parameters.begin(), parameters.end());
  if (!will_record(all)) return fn(inputs);
  std::vector<Variable> first;
  {
    const NoGrad scope;
    first = fn(inputs);
  }
  std::vector<Tensor> outputs;
  for (const Variable& v : first) outputs.push_back(v.value());
  std::vector<Tensor> values(inputs.size());
  std::vector<bool> wanted(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined()) values[i] = inputs[i].value();
    wanted[i] = inputs[i].requires_grad();
  }
  const auto again = [fn, values, wanted, parameters, n = outputs.size()](Grads& g) {
    enabled = true;  // the engine's NoGrad scope restores it
    std::vector<Variable> copies(values.size());
    Redirect redirect;
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i].defined()) copies[i] = Variable(values[i], wanted[i]);
      if (wanted[i]) redirect.emplace(Engine::state(copies[i]), Kept{});
    }
    for (const Variable& p : parameters) {
      if (p.requires_grad()) redirect.emplace(Engine::state(p), Kept{});
    }
    const std::vector<Variable> outs = fn(copies);
    std::vector<Variable> reached;
    std::vector<Tensor> gradients;
    for (size_t i = 0; i < n; ++i) {
      if (!g.has_out(int(i)) || !outs[i].requires_grad()) continue;
      reached.push_back(outs[i]);
      gradients.push_back(g.out(int(i)));
    }
    if (reached.empty()) return;
    Engine::run(reached, gradients, false, &redirect);
    for (size_t i = 0; i < copies.size() + parameters.size(); ++i) {
      const Variable& v = i < copies.size() ? copies[i] : parameters[i - copies.size()];
      const auto found = v.defined() ? redirect.find(Engine::state(v)) : redirect.end();
      if (found != redirect.end() && found->second.gradient.defined()) g.give(int(i), found->second.gradient);
    }
  };
  return record("checkpoint", outputs, all, again);
}

}  // namespace modrwkv
