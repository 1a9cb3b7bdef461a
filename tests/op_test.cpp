#include "tests/op_test.h"

#include <cmath>
#include <limits>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/hdf5.h"
#include "core/memory.h"
#include "core/random.h"

namespace modrwkv::testing {
namespace {

constexpr double kF32Floor = 8 * 0x1p-23, kBf16Floor = 0x1p-9;  // a few eps; half an eps

bool is_float(DType t) { return t == DType::f32 || t == DType::f64 || t == DType::bf16; }

bool contains(const std::vector<size_t>& places, size_t i) {
  return std::find(places.begin(), places.end(), i) != places.end();
}

struct Pass {
  std::vector<Tensor> outputs, gradients;  // f64 on the CPU; undefined where there is none
};

Tensor home(const Tensor& t) { return t.to(kCpu).to(DType::f64); }

// Runs fn forward and backward on inputs converted to `type` on `device`. An undefined dout is not
// differentiated.
Pass run_op(const VariableFunction& fn, const std::vector<Tensor>& inputs, const std::vector<size_t>& fixed,
            const std::vector<size_t>& wide, const std::vector<Tensor>& douts, DType type, Device device,
            bool shift = false) {
  const auto place = [&](const Tensor& t) {
    if (!shift) return t.to(device);
    Tensor moved = Tensor::empty({t.numel() + 1}, t.dtype(), device).slice(1, t.numel() + 1).reshape(t.shape());
    moved.copy_from(t);
    return moved;
  };
  std::vector<Variable> leaves;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) {
      leaves.emplace_back();
      continue;
    }
    const bool differentiate = is_float(inputs[i].dtype()) && !contains(fixed, i);
    const DType own = type == DType::bf16 && contains(wide, i) ? DType::f32 : type;
    leaves.emplace_back(place(is_float(inputs[i].dtype()) ? inputs[i].to(own) : inputs[i]), differentiate);
  }
  poison_new_memory(true);
  const std::vector<Variable> outputs = fn(leaves);
  std::vector<Variable> roots;
  std::vector<Tensor> gradients;
  for (size_t i = 0; i < outputs.size() && i < douts.size(); ++i) {
    if (!douts[i].defined() || !outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    gradients.push_back(place(douts[i].to(outputs[i].dtype())));
  }
  if (!roots.empty()) backward(roots, gradients);
  poison_new_memory(false);
  Pass pass;
  for (const Variable& v : outputs) pass.outputs.push_back(home(v.value()));
  for (const Variable& v : leaves)
    pass.gradients.push_back(v.defined() && v.grad().defined() ? home(v.grad()) : Tensor());
  return pass;
}

Tensor rounded(const Tensor& t, DType type) {
  return t.defined() && is_float(t.dtype()) ? t.to(DType::f32).to(type).to(DType::f64) : t;
}

}  // namespace

Tensor random_tensor(const Shape& shape, uint64_t seed, double scale) {
  RandomStream random(seed, Purpose::test);
  Tensor t = Tensor::empty(shape, DType::f64);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = scale * random.uniform(-1, 1);
  return t;
}

double relative_error(const Tensor& a, const Tensor& b) {
  const Tensor x = home(a), y = home(b);
  if (!(x.shape() == y.shape())) return std::numeric_limits<double>::infinity();
  double error = 0, size = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double u = x.data<double>()[i], v = y.data<double>()[i];
    if (std::isnan(u) && std::isnan(v)) continue;
    error += (u - v) * (u - v);
    size += v * v;
  }
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  if (size == 0) return error == 0 ? 0.0 : std::numeric_limits<double>::infinity();
  return std::sqrt(error / size);
}

void expect_golden(const std::string& file, const std::string& name, const VariableFunction& fn,
                   double f32_tolerance) {
  const FileReader golden("tests/goldens/" + file + ".h5");
  const auto all = [&](const std::string& kind) {
    std::vector<Tensor> tensors;
    int64_t last = -1;
    for (int i = 0; i < 40; ++i) {
      const std::string key = "/" + name + "." + kind + std::to_string(i);
      const bool here = golden.has(key);
      tensors.push_back(here ? golden.read(key) : Tensor());
      if (here) last = i;
    }
    tensors.resize(size_t(last + 1));
    return tensors;
  };
  const std::vector<Tensor> inputs = all("in"), outputs = all("out"), douts = all("dout"), dins = all("din");
  ASSERT_FALSE(inputs.empty()) << file << ": no case " << name;
  ASSERT_FALSE(outputs.empty());
  std::vector<size_t> fixed;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (i >= dins.size() || !dins[i].defined()) fixed.push_back(i);
  }
  for (const auto& [type, tolerance] : {std::pair{DType::f64, 1e-11}, std::pair{DType::f32, f32_tolerance}}) {
    const Pass pass = run_op(fn, inputs, fixed, {}, douts, type, kCpu);
    ASSERT_EQ(pass.outputs.size(), outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      EXPECT_LE(relative_error(pass.outputs[i], outputs[i]), tolerance)
          << name << " " << name_of(type) << ": output " << i;
    }
    for (size_t i = 0; i < dins.size(); ++i) {
      if (!dins[i].defined()) continue;
      ASSERT_TRUE(pass.gradients[i].defined()) << name << ": no gradient of input " << i;
      EXPECT_LE(relative_error(pass.gradients[i], dins[i].reshape(pass.gradients[i].shape())), tolerance)
          << name << " " << name_of(type) << ": gradient of input " << i;
    }
  }
}

void expect_gradients(const VariableFunction& fn, const std::vector<Tensor>& inputs, uint64_t seed) {
  std::vector<Variable> leaves;
  for (const Tensor& t : inputs) leaves.push_back(t.defined() ? Variable(t, is_float(t.dtype())) : Variable());
  const GradCheck result = gradcheck(fn, leaves, seed);
  EXPECT_TRUE(result.ok) << "seed " << seed << ": " << result.worst;
}

void expect_cuda_equals_cpu(const VariableFunction& fn, const std::vector<Tensor>& inputs,
                            const CudaTest& options) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  for (const DType type : {DType::f32, DType::bf16}) {
    if (!(type == DType::f32 ? options.f32 : options.bf16)) continue;
    std::vector<Tensor> same;
    for (size_t i = 0; i < inputs.size(); ++i)
      same.push_back(rounded(inputs[i], contains(options.wide, i) ? DType::f32 : type));
    std::vector<Tensor> douts;
    {
      const NoGrad scope;
      std::vector<Variable> values;
      for (const Tensor& t : same) values.push_back(t.defined() ? Variable(t) : Variable());
      uint64_t seed = 1000;
      for (const Variable& v : fn(values)) {
        const Tensor dout = random_tensor(v.shape(), seed++);
        douts.push_back(is_float(v.dtype()) ? rounded(dout, v.value().numel() == 1 ? DType::f32 : type)
                                            : Tensor());
      }
    }
    const Pass exact = run_op(fn, same, options.fixed, options.wide, douts, DType::f64, kCpu);
    const Pass plain = run_op(fn, same, options.fixed, options.wide, douts, DType::f32, kCpu);
    for (const std::string& order : cuda::thread_orders()) {
      cuda::set_thread_order(order);
      const Pass tested = run_op(fn, same, options.fixed, options.wide, douts, type, device, options.unaligned);
      const auto compare = [&](const std::vector<Tensor>& a, const std::vector<Tensor>& p,
                               const std::vector<Tensor>& b, const char* what) {
        ASSERT_EQ(a.size(), b.size());
        for (size_t i = 0; i < b.size(); ++i) {
          ASSERT_EQ(a[i].defined(), b[i].defined()) << what << " " << i;
          if (!b[i].defined() || b[i].numel() == 0) continue;
          const double own = relative_error(rounded(p[i], type), b[i]);
          const double tolerance =
              type == DType::f32 ? 2 * own + kF32Floor : options.roundings * (2 * own + kBf16Floor);
          EXPECT_LE(relative_error(a[i], b[i]), tolerance)
              << name_of(type) << " " << order << " order: " << what << " " << i << " " << b[i].shape().str();
        }
      };
      compare(tested.outputs, plain.outputs, exact.outputs, "output");
      compare(tested.gradients, plain.gradients, exact.gradients, "gradient of input");
    }
    cuda::set_thread_order(cuda::thread_orders().front());
  }
}

void expect_error(const std::function<void()>& fn, const std::string& text) {
  try {
    fn();
    ADD_FAILURE() << "expected an error with: " << text;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos)
        << "message: " << e.what() << "\nexpected: " << text;
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
  }
}

}  // namespace modrwkv::testing
