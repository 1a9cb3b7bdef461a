// Benchmarks beside their bounds: each op's time beside the time that its bytes take at the measured copy
// bandwidth, and a whole RWKV-7 training step beside the same machine's best matrix product.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "core/error.h"
#include "core/gemm.h"
#include "core/json.h"
#include "core/parallel.h"
#include "core/program.h"
#include "core/random.h"
#include "models/rwkv7.h"
#include "ops/activation.h"
#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "ops/time_mix_keys.h"
#include "ops/time_mix_output.h"
#include "ops/token_shift.h"
#include "ops/value_residual.h"
#include "ops/wkv7.h"
#include "train/optimizer.h"

using namespace modrwkv;

namespace {

struct BenchOptions {
  std::string what = "all";
  int64_t layers = 12, width = 768, vocab = 65536, batch = 4, time = 512, runs = 5, steps = 3, threads = 0;
  std::string device = "cpu";

  template <class V>
  void fields(V& v) {
    v.positional("WHAT", what, "what to measure", Choices{"all", "ops", "model"});
    v.group("shape");
    v("layers", layers, "RWKV-7 blocks of the model", Range{1, 128});
    v("width", width, "channels, a multiple of 64", Range{64, 8192});
    v("vocab", vocab, "tokens of the vocabulary", Range{2, 1 << 20});
    v("batch", batch, "sequences of a step", Range{1, 4096});
    v("time", time, "tokens of a sequence", Range{1, 1 << 20});
    v.group("run");
    v("runs", runs, "counted runs of an op; the median is shown", Range{1, 1000});
    v("steps", steps, "counted steps of the model; the median is shown", Range{1, 1000});
    v("threads", threads, "CPU threads, 0: all cores", Range{0, 4096});
    v("device", device, "cpu, cuda or cuda:N");
  }
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of the median run, after one that is not counted.
double measure(int64_t runs, const std::function<void()>& fn) {
  fn();
  std::vector<double> seconds;
  for (int64_t i = 0; i < runs; ++i) {
    const double start = now();
    fn();
    seconds.push_back(now() - start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + runs / 2, seconds.end());
  return seconds[size_t(runs / 2)];
}

Tensor random(const Shape& shape, uint64_t seed, double scale = 1) {
  RandomStream r(seed, Purpose::test);
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(scale * r.uniform(-1, 1));
  return t;
}

// Bytes a second, read and written, of a copy between buffers far larger than the caches.
double copy_bandwidth(Device device, int64_t runs) {
  const int64_t n = int64_t(1) << 26;
  const Tensor from = Tensor::zeros({n}, DType::f32, device);
  Tensor to = Tensor::zeros({n}, DType::f32, device);
  const double seconds = measure(runs, [&] {
    if (device.is_cuda()) {
      to.copy_from(from);
      (void)to.slice(0, 1).to(kCpu);
      return;
    }
    const float* a = from.data<float>();
    float* b = to.data<float>();
    parallel_for(n, 1 << 16,
                 [&](int64_t begin, int64_t end) { memcpy(b + begin, a + begin, size_t(end - begin) * 4); });
  });
  return 2.0 * double(from.bytes()) / seconds;
}

double gemm_rate(Device device, int64_t runs) {
  const int64_t n = 2048;
  const Tensor a = random({n, n}, 1).to(device), b = random({n, n}, 2).to(device);
  Tensor c = Tensor::empty({n, n}, DType::f32, device);
  const double seconds = measure(runs, [&] {
    gemm(a, b, c);
    if (device.is_cuda()) (void)c.slice(0, 1).to(kCpu);
  });
  return 2.0 * double(n * n * n) / seconds;
}

struct Row {
  std::string name;
  double bytes;  // that a forward and backward pass must move
  std::function<std::vector<Variable>(const std::vector<Variable>&)> fn;
  std::vector<Tensor> inputs;
};

void bench_ops(const BenchOptions& o, Device device, double bandwidth) {
  const int64_t B = o.batch, T = o.time, C = o.width, H = C / 64;
  const Shape x{B, T, C};
  const double n = double(B * T * C) * 4;  // bytes of one activation
  const auto act = [&](uint64_t seed, double scale = 1.0) { return random(x, seed, scale); };
  const auto vec = [&](uint64_t seed) { return random({C}, seed); };
  using V = std::vector<Variable>;
  const std::vector<Row> rows = {
      {"add", n * 3, [](const V& v) -> V { return {add(v[0], v[1])}; }, {act(1), act(2)}},
      {"layer_norm",
       n * 5,
       [](const V& v) -> V { return {layer_norm(v[0], v[1], v[2])}; },
       {act(1), vec(2), vec(3)}},
      {"token_shift, 6 mixes",
       n * 15,
       [](const V& v) {
         return token_shift(v[0], {}, {v.begin() + 1, v.end()});
       },
       {act(1), vec(2), vec(3), vec(4), vec(5), vec(6), vec(7)}},
      {"value_residual",
       n * 10,
       [](const V& v) -> V { return {value_residual(v[0], v[1], v[2])}; },
       {act(1), act(2), act(3)}},
      {"time_mix_keys",
       n * 12,
       [H](const V& v) { return time_mix_keys(v[0], v[1], v[2], v[3], H); },
       {act(1), act(2), vec(3), vec(4)}},
      {"wkv7",
       n * 20,
       [H](const V& v) -> V { return {wkv7(v[0], v[1], v[2], v[3], v[4], v[5], H).y}; },
       {act(1), act(2), act(3), act(4), act(5, 0.1), act(6, 0.1)}},
      {"time_mix_output",
       n * 17,
       [](const V& v) -> V {
         return {time_mix_output(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], 6.4e-4)};
       },
       {act(1), act(2), act(3), act(4), act(5), random({H, 64}, 6), vec(7), vec(8)}},
      {"relu_squared, 4 C",
       n * 20,
       [](const V& v) -> V { return {relu_squared(v[0])}; },
       {random({B, T, 4 * C}, 1)}},
  };
  fmt::print(
      "\nops, B {} T {} C {}, f32, forward + backward; the bound is the bytes that must move over {:.1f} "
      "GB/s\n\n",
      B, T, C, bandwidth / 1e9);
  fmt::print("{:<24} {:>10} {:>10} {:>8}\n", "op", "ms", "bound ms", "ratio");
  for (const Row& r : rows) {
    V leaves;
    for (const Tensor& t : r.inputs) leaves.emplace_back(t.to(device), true);
    std::vector<Tensor> dout;
    const double seconds = measure(o.runs, [&] {
      const V outputs = r.fn(leaves);
      if (dout.empty()) {
        for (const Variable& y : outputs) dout.push_back(Tensor::full(y.shape(), 0.5, y.dtype(), device));
      }
      backward(outputs, dout);
      for (Variable& v : leaves) v.zero_grad();
      if (device.is_cuda()) (void)outputs[0].value().reshape({-1}).slice(0, 1).to(kCpu);
    });
    fmt::print("{:<24} {:>10.2f} {:>10.2f} {:>8.2f}\n", r.name, seconds * 1e3, r.bytes / bandwidth * 1e3,
               r.bytes / bandwidth / seconds);
  }
}

Json bench_model(const BenchOptions& o, Device device, double rate) {
  Rwkv7Config config;
  config.layers = o.layers;
  config.width = o.width;
  config.vocab = o.vocab;
  Rwkv7 model(config, Init(1));
  model.to(device, DType::f32);
  Optimizer optimizer(model, {.weight_decay = 0.1});
  std::vector<int32_t> ids(size_t(o.batch * o.time)), labels(ids.size());
  RandomStream r(3, Purpose::test);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = int32_t(r.below(uint64_t(o.vocab)));
    labels[i] = int32_t(r.below(uint64_t(o.vocab)));
  }
  const Tensor tokens = Tensor::from(ids, {o.batch, o.time}).to(device);
  const Tensor targets = Tensor::from(labels, {o.batch, o.time}).to(device);
  int64_t flops = 0;
  double loss = 0;
  const double seconds = measure(o.steps, [&] {
    const int64_t before = gemm_flops();
    optimizer.zero_grad();
    const Variable y = cross_entropy(model.head(model.forward(model.embed(tokens))), targets);
    backward(y);
    optimizer.step(1e-4);
    loss = double(y.value().to_vector<float>()[0]);
    flops = gemm_flops() - before;
  });
  fmt::print("\nRWKV-7 L{}-D{} V{}, {} parameters, B {} T {}, f32: forward + backward + AdamW\n\n", o.layers,
             o.width, o.vocab, model.parameter_count(), o.batch, o.time);
  fmt::print("{:<36} {:>12.3f}\n", "seconds a step", seconds);
  fmt::print("{:<36} {:>12.1f}\n", "tokens a second", double(o.batch * o.time) / seconds);
  fmt::print("{:<36} {:>12.1f}\n", "matrix products, GFLOP a step", double(flops) / 1e9);
  fmt::print("{:<36} {:>12.1f}\n", "matrix products, GFLOP/s", double(flops) / seconds / 1e9);
  fmt::print("{:<36} {:>12.3f}\n", "share of the 2048 cubed product's rate", double(flops) / seconds / rate);
  return Json::object()
      .set("step_seconds", seconds)
      .set("tokens_per_s", double(o.batch * o.time) / seconds)
      .set("gemm_share", double(flops) / seconds / rate)
      .set("loss", loss);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](Arguments& arguments) {
    const auto o =
        parse_options<BenchOptions>(arguments, "Measures ops and a training step beside their bounds.");
    require(o.width % 64 == 0, "--width {}: expected a multiple of 64", o.width);
    set_threads(int(o.threads));
    const Device device = parse_device(o.device);
    const double bandwidth = copy_bandwidth(device, o.runs), rate = gemm_rate(device, o.runs);
    fmt::print("device {}, {} threads\n", to_string(device), threads());
    fmt::print("copy, read + written            {:>8.1f} GB/s\n", bandwidth / 1e9);
    fmt::print("sgemm 2048 x 2048 x 2048        {:>8.1f} GFLOP/s\n", rate / 1e9);
    Json result = Json::object().set("copy_gb_per_s", bandwidth / 1e9).set("sgemm_gflop_per_s", rate / 1e9);
    if (o.what != "model") bench_ops(o, device, bandwidth);
    if (o.what != "ops") {
      const Json model = bench_model(o, device, rate);
      for (const auto& [key, value] : model.members()) result.set(key, value);
    }
    fmt::print("{}\n", result.dump());
    return kDone;
  });
}
