// The thin layer between this project and a CUDA device. No CUDA header is included here, so every host file
// may use it. Three implementations, one of which is linked: runtime_nvidia.cpp (the CUDA runtime),
// runtime_emulated.cpp (kernels run on the CPU, see core/simt/) and runtime_none.cpp (a build without nvcc:
// available() is false, everything else throws). Every call throws modrwkv::Error naming the call; the null
// stream is refused.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace modrwkv::cuda {

struct StreamState;
struct EventState;
using Stream = StreamState*;
using Event = EventState*;

bool available();               // a device can be used by this process
std::string why_unavailable();  // one sentence, empty when available
int device_count();
void set_device(int device);  // for the calling thread
int current_device();

struct Properties {
  std::string name;
  int compute_capability = 0;  // 90 for sm_90
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  size_t shared_bytes_per_block = 0;  // with opt-in
  bool emulated = false;
};
Properties properties(int device);

// Orders in which the emulator can run the threads of a block; a GPU has one of its own. Tests try them all.
std::vector<std::string> thread_orders();  // {"ascending", "descending", "greedy"}, or {"native"}
void set_thread_order(const std::string& order);

Stream create_stream();
void destroy(Stream stream);
Stream current_stream();  // of the calling thread and its current device; created on first use
void set_current_stream(Stream stream);
void sync(Stream stream);  // errors of earlier launches surface here
void sync_all();

Event create_event();
void destroy(Event event);
void record(Event event, Stream stream);
void wait(Stream stream, Event event);
void sync(Event event);
bool done(Event event);

void* alloc(size_t bytes, Stream stream);  // stream ordered, 256-byte aligned
void free(void* pointer, Stream stream);
void* alloc_host(size_t bytes);  // pinned
void free_host(void* pointer);
void copy_to_device(void* to, const void* from, size_t bytes,
                    Stream stream);  // `from` must stay valid until a sync
void copy_to_host(void* to, const void* from, size_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, size_t bytes, Stream stream);
void fill(void* to, uint8_t byte, size_t bytes, Stream stream);

// Row-major C[m,n] = op(A)[m,k] op(B)[k,n] + beta C (+ bias[n]), fp32 accumulation. lda, ldb, ldc are row
// strides in elements of the matrices as stored; `batch` problems lie stride_* elements apart. A and B share
// one type (f32 or bf16); C and bias share one, f32, or bf16 when A and B are. f32 inputs are multiplied in
// tf32 only where allow_tf32 is set.
struct Matmul {
  bool trans_a = false, trans_b = false;
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;
  int64_t lda = 0, ldb = 0, ldc = 0;
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  DType input = DType::f32, output = DType::f32, bias_type = DType::f32;
  float beta = 0;
  bool allow_tf32 = false;
};
void matmul(const Matmul& problem, Stream stream);

}  // namespace modrwkv::cuda
