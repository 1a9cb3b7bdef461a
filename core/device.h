// Where a tensor lives, and the one `if` that sends an op to its CPU or its CUDA function.
#pragma once
#include <string>
#include <utility>

namespace modrwkv {

enum class DeviceType : unsigned char { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
  bool is_cuda() const { return type == DeviceType::cuda; }
};

constexpr Device kCpu{};
std::string to_string(Device device);          // "cpu", "cuda:0"
Device parse_device(const std::string& text);  // throws on an unknown name, or when no such device can be used
[[noreturn]] void fail_no_kernels();

// Launchers (functions of namespace modrwkv::cuda defined in a .cu) are declared with this: a build without
// nvcc links without them, and `run` refuses the call.
#define MODRWKV_LAUNCHER __attribute__((weak))

// run(x.device(), cpu::layer_norm_forward, cuda::layer_norm_forward, args...)
template <class Cpu, class Cuda, class... Args>
void run(Device device, Cpu* on_cpu, Cuda* on_cuda, Args&&... args) {
  if (!device.is_cuda()) return on_cpu(std::forward<Args>(args)...);
  if (on_cuda == nullptr) fail_no_kernels();
  on_cuda(std::forward<Args>(args)...);
}

}  // namespace modrwkv
