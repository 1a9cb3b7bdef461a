// A contiguous, row-major array of up to five axes on one device: a handle to shared storage. Copies share;
// views are reshape and leading slices only, so that every kernel sees plain rows.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"

namespace modrwkv {

class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  explicit Shape(const std::vector<int64_t>& sizes);
  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis < 0 ? axis + rank_ : axis]; }
  int64_t& operator[](int axis) { return sizes_[axis < 0 ? axis + rank_ : axis]; }
  int64_t numel() const;
  bool operator==(const Shape&) const = default;  // unused axes are 0
  std::string str() const;                        // "[2, 3]"

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> sizes_{};
};

struct Storage;

class Tensor {
 public:
  Tensor() = default;  // undefined
  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = kCpu);
  static Tensor empty_like(const Tensor& other);  // same shape, type and device
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);  // on the CPU

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t size(int axis) const;  // axis may be negative
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return size_t(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::string str() const;  // "f32 [2, 3] on cpu"

  void* raw() const { return data_; }
  template <class T>
  T* data() const {  // T must be the element type
    if (DTypeOf<T>::value != dtype_) fail_dtype("tensor", dtype_, name_of(DTypeOf<T>::value));
    return static_cast<T*>(data_);
  }
  template <class T>
  std::vector<T> to_vector() const;  // copied to the CPU and waited for; T must be the element type

  Tensor reshape(const Shape& shape) const;        // same storage; one size may be -1
  Tensor slice(int64_t begin, int64_t end) const;  // rows [begin, end) of axis 0; same storage
  Tensor to(Device device) const;                  // itself when it is there already
  Tensor to(DType dtype) const;                    // itself when it has that type already
  Tensor clone() const;
  void copy_from(const Tensor& other);  // same shape; converts type and device
  void add(const Tensor& other);        // this += other, same shape and device; types may differ
  void fill(double value);
  void fill_bytes(uint8_t byte);
  bool same_storage(const Tensor& other) const { return storage_ == other.storage_; }

 private:
  std::shared_ptr<Storage> storage_;
  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
};

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  Tensor t = empty(shape, DTypeOf<T>::value);
  if (int64_t(values.size()) != t.numel()) throw std::invalid_argument("Tensor::from: size");
  if (!values.empty()) memcpy(t.raw(), values.data(), t.bytes());
  return t;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor here = to(kCpu);
  const T* p = here.data<T>();
  return std::vector<T>(p, p + numel());
}

// Bytes of tensor memory, by device type and by what they are for. A MemoryScope tags what its thread
// allocates.
enum class MemoryTag : uint8_t { other, parameters, gradients, optimizer, activations, workspace };
constexpr int kMemoryTags = 6;
const char* name_of(MemoryTag tag);

class MemoryScope {
 public:
  explicit MemoryScope(MemoryTag tag);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;

 private:
  MemoryTag before_;
};

struct MemoryUse {
  int64_t current = 0, peak = 0;
};
MemoryUse memory_use(DeviceType device, MemoryTag tag);
MemoryUse memory_use(DeviceType device);  // all tags together
void reset_memory_peaks();

}  // namespace modrwkv
