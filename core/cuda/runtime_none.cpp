// The device layer of a build without nvcc.
#include "core/cuda/runtime.h"
#include "core/error.h"

namespace modrwkv::cuda {
namespace {

constexpr const char* kReason = "this build has no CUDA (nvcc was not found when it was built)";

[[noreturn]] void none(const char* call) { fail("{}: {}", call, kReason); }

}  // namespace

bool available() { return false; }
std::string why_unavailable() { return kReason; }
int device_count() { return 0; }
void set_device(int) { none("set_device"); }
int current_device() { none("current_device"); }
Properties properties(int) { none("properties"); }
std::vector<std::string> thread_orders() { return {}; }
void set_thread_order(const std::string&) { none("set_thread_order"); }
Stream create_stream() { none("create_stream"); }
void destroy(Stream) { none("destroy"); }
Stream current_stream() { none("current_stream"); }
void set_current_stream(Stream) { none("set_current_stream"); }
void sync(Stream) { none("sync"); }
void sync_all() { none("sync_all"); }
Event create_event() { none("create_event"); }
void destroy(Event) { none("destroy"); }
void record(Event, Stream) { none("record"); }
void wait(Stream, Event) { none("wait"); }
void sync(Event) { none("sync"); }
bool done(Event) { none("done"); }
void* alloc(size_t, Stream) { none("alloc"); }
void free(void*, Stream) { none("free"); }
void* alloc_host(size_t) { none("alloc_host"); }
void free_host(void*) { none("free_host"); }
void copy_to_device(void*, const void*, size_t, Stream) { none("copy_to_device"); }
void copy_to_host(void*, const void*, size_t, Stream) { none("copy_to_host"); }
void copy_on_device(void*, const void*, size_t, Stream) { none("copy_on_device"); }
void fill(void*, uint8_t, size_t, Stream) { none("fill"); }
void matmul(const Matmul&, Stream) { none("matmul"); }

}  // namespace modrwkv::cuda
