// The device layer on a real GPU: the CUDA runtime. A Stream is a cudaStream_t, an Event a cudaEvent_t.
#include <cuda_runtime_api.h>

#include <mutex>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/error.h"

namespace modrwkv::cuda {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the error is reported here, not by the next call
  fail("{}: {}", call, cudaGetErrorString(error));
}

cudaStream_t native(Stream stream, const char* call) {
  require(stream != nullptr, "{}: the null stream", call);
  return reinterpret_cast<cudaStream_t>(stream);
}

cudaEvent_t native(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

struct Devices {
  int count = 0;
  std::string reason;  // why there is none
};

const Devices& devices() {
  static const Devices d = [] {
    Devices r;
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) {
      r.count = n;
    } else {
      cudaGetLastError();
      r.reason = fmt::format("no CUDA device: cudaGetDeviceCount says {}",
                             error == cudaSuccess ? "there is none" : cudaGetErrorString(error));
    }
    return r;
  }();
  return d;
}

// Freed memory stays in the device's pool, so that a training step allocates nothing from the driver.
void keep_pool(int device) {
  static std::mutex mutex;
  static std::vector<bool> kept(size_t(devices().count), false);
  const std::lock_guard lock(mutex);
  if (kept[size_t(device)]) return;
  cudaMemPool_t pool;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  uint64_t threshold = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold), "cudaMemPoolSetAttribute");
  kept[size_t(device)] = true;
}

thread_local std::vector<Stream> streams;  // of this thread, by device; live as long as the process

}  // namespace

bool available() { return devices().count > 0; }
std::string why_unavailable() { return devices().reason; }
int device_count() { return devices().count; }

void set_device(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

Properties properties(int device) {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
  return {p.name,           10 * p.major + p.minor,   p.multiProcessorCount,
          p.totalGlobalMem, p.sharedMemPerBlockOptin, false};
}

std::vector<std::string> thread_orders() { return {"native"}; }
void set_thread_order(const std::string& order) {
  require(order == "native", "set_thread_order: {} on a GPU", order);
}

Stream create_stream() {
  keep_pool(current_device());
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return reinterpret_cast<Stream>(stream);
}

void destroy(Stream stream) { check(cudaStreamDestroy(native(stream, "destroy")), "cudaStreamDestroy"); }

Stream current_stream() {
  const size_t device = size_t(current_device());
  if (streams.size() <= device) streams.resize(device + 1, nullptr);
  if (streams[device] == nullptr) streams[device] = create_stream();
  return streams[device];
}

void set_current_stream(Stream stream) {
  const size_t device = size_t(current_device());
  if (streams.size() <= device) streams.resize(device + 1, nullptr);
  native(stream, "set_current_stream");
  streams[device] = stream;
}

void sync(Stream stream) { check(cudaStreamSynchronize(native(stream, "sync")), "cudaStreamSynchronize"); }
void sync_all() { check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

Event create_event() {
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return reinterpret_cast<Event>(event);
}

void destroy(Event event) { check(cudaEventDestroy(native(event)), "cudaEventDestroy"); }
void record(Event event, Stream stream) {
  check(cudaEventRecord(native(event), native(stream, "record")), "cudaEventRecord");
}
void wait(Stream stream, Event event) {
  check(cudaStreamWaitEvent(native(stream, "wait"), native(event), 0), "cudaStreamWaitEvent");
}
void sync(Event event) { check(cudaEventSynchronize(native(event)), "cudaEventSynchronize"); }

bool done(Event event) {
  const cudaError_t error = cudaEventQuery(native(event));
  if (error == cudaErrorNotReady) return false;
  check(error, "cudaEventQuery");
  return true;
}

void* alloc(size_t bytes, Stream stream) {
  void* p = nullptr;
  const cudaError_t error = cudaMallocAsync(&p, bytes > 0 ? bytes : 1, native(stream, "alloc"));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail("out of memory: {} bytes on the GPU, {} of {} are free", bytes, free, total);
  }
  check(error, "cudaMallocAsync");
  return p;
}

void free(void* pointer, Stream stream) {
  if (pointer == nullptr) return;
  const cudaError_t error = cudaFreeAsync(pointer, native(stream, "free"));
  if (error == cudaErrorCudartUnloading) return;  // the process ends, and a static tensor outlived the runtime
  check(error, "cudaFreeAsync");
}

void* alloc_host(size_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes > 0 ? bytes : 1), "cudaMallocHost");
  return p;
}

void free_host(void* pointer) { check(cudaFreeHost(pointer), "cudaFreeHost"); }

void copy_to_device(void* to, const void* from, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, native(stream, "copy_to_device")),
        "cudaMemcpyAsync to the device");
}

void copy_to_host(void* to, const void* from, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, native(stream, "copy_to_host")),
        "cudaMemcpyAsync to the host");
}

void copy_on_device(void* to, const void* from, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(stream, "copy_on_device")),
        "cudaMemcpyAsync on the device");
}

void fill(void* to, uint8_t byte, size_t bytes, Stream stream) {
  check(cudaMemsetAsync(to, byte, bytes, native(stream, "fill")), "cudaMemsetAsync");
}

}  // namespace modrwkv::cuda
