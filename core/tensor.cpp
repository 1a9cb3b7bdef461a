// Tensors: storage, views, conversions and the accounting of memory.
#include "core/tensor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/tensor_kernels.h"

namespace modrwkv {

// ---------------------------------------------------------------- shapes

Shape::Shape(std::initializer_list<int64_t> sizes) : Shape(std::vector<int64_t>(sizes)) {}

Shape::Shape(const std::vector<int64_t>& sizes) : rank_(int(sizes.size())) {
  require(sizes.size() <= size_t(kMaxRank), "tensor: {} axes, at most {} are supported", sizes.size(),
          kMaxRank);
  std::copy(sizes.begin(), sizes.end(), sizes_.begin());
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= sizes_[i];
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(sizes_[i]);
  return s + "]";
}

void fail_dtype(const char* where, DType got, const char* expected) {
  fail("{}: element type is {}, expected {}", where, name_of(got), expected);
}

// ---------------------------------------------------------------- devices

std::string to_string(Device device) {
  return device.is_cuda() ? fmt::format("cuda:{}", device.index) : std::string("cpu");
}

Device parse_device(const std::string& text) {
  if (text == "cpu") return kCpu;
  int index = 0;
  if (text.rfind("cuda", 0) == 0) {
    const std::string rest = text.substr(4);
    const bool plain = rest.empty();
    const bool indexed = rest.size() >= 2 && rest.size() <= 4 && rest[0] == ':' &&
                         std::all_of(rest.begin() + 1, rest.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (plain || indexed) {
      if (indexed) index = std::stoi(rest.substr(1));
      require(cuda::available(), "--device {}: {}", text, cuda::why_unavailable());
      require(index < cuda::device_count(), "--device {}: this machine has {} CUDA device(s)", text,
              cuda::device_count());
      return Device{DeviceType::cuda, index};
    }
  }
  fail("--device {}: expected cpu, cuda or cuda:N", text);
}

void fail_no_kernels() { fail("this build has no CUDA kernels (nvcc was not found when it was built)"); }

// ---------------------------------------------------------------- storage

struct Storage {
  Block block;
  explicit Storage(const Block& b) : block(b) {}
  ~Storage() { release(block); }
  Storage(const Storage&) = delete;
};

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  for (int i = 0; i < shape.rank(); ++i) require(shape[i] >= 0, "tensor: negative size in {}", shape.str());
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  t.storage_ = std::make_shared<Storage>(acquire(device, t.bytes()));
  t.data_ = t.storage_->block.pointer;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill_bytes(0);
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

Tensor Tensor::empty_like(const Tensor& other) { return empty(other.shape_, other.dtype_, other.device_); }

int64_t Tensor::size(int axis) const {
  require(axis >= -rank() && axis < rank(), "tensor: axis {} of a tensor with shape {}", axis, shape_.str());
  return shape_[axis];
}

std::string Tensor::str() const {
  if (!defined()) return "undefined";
  return fmt::format("{} {} on {}", name_of(dtype_), shape_.str(), to_string(device_));
}

Tensor Tensor::reshape(const Shape& shape) const {
  Shape s = shape;
  int64_t known = 1;
  int open = -1;
  for (int i = 0; i < s.rank(); ++i) {
    if (s[i] == -1 && open < 0) {
      open = i;
    } else {
      known *= s[i];
    }
  }
  if (open >= 0 && known > 0 && numel() % known == 0) s[open] = numel() / known;
  require(s.numel() == numel() && std::min(known, s.numel()) >= 0, "reshape: {} does not fit {}", shape_.str(),
          shape.str());
  Tensor t = *this;
  t.shape_ = s;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  require(rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], "slice: rows [{}, {}) of {}", begin,
          end, shape_.str());
  const int64_t row = shape_[0] ? numel() / shape_[0] : 0;
  Tensor t = *this;
  t.shape_[0] = end - begin;
  t.data_ = static_cast<char*>(data_) + size_t(begin * row) * size_of(dtype_);
  return t;
}

// ---------------------------------------------------------------- conversions

namespace {

// Calls body with a value of the C++ type of t; f16 is a file format and has no arithmetic.
template <class Body>
void for_any(DType t, Body&& body) {
  switch (t) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(bf16{});
    case DType::f64:
      return body(double{});
    case DType::i32:
      return body(int32_t{});
    case DType::i64:
      return body(int64_t{});
    case DType::u8:
      return body(uint8_t{});
    case DType::f16:
      break;
  }
  fail_dtype("tensor conversion", t, "a type with arithmetic");
}

template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, bf16>) {
    return convert<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, bf16>) {
    return to_bf16(float(x));
  } else {
    return To(x);
  }
}

void convert_on_cpu(const Tensor& from, Tensor& to) {
  for_any(from.dtype(), [&](auto f) {
    for_any(to.dtype(), [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      const From* x = from.data<From>();
      To* y = to.data<To>();
      parallel_for(from.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[i] = convert<To>(x[i]);
      });
    });
  });
}

}  // namespace

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  Tensor t = empty(shape_, dtype_, device);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device_);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty_like(*this);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& other) {
  require(shape_ == other.shape_, "copy: shapes differ, {} and {}", str(), other.str());
  if (numel() == 0) return;
  if (dtype_ != other.dtype_) {
    if (device_ != other.device_) return copy_from(other.to(device_));
    if (!device_.is_cuda()) return convert_on_cpu(other, *this);
    return cuda::convert(other, *this);
  }
  if (!device_.is_cuda() && !other.device_.is_cuda()) {
    memmove(data_, other.data_, bytes());
    return;
  }
  const cuda::Stream stream = cuda::current_stream();
  if (device_.is_cuda() && other.device_.is_cuda()) {
    cuda::copy_on_device(data_, other.data_, bytes(), stream);
  } else if (device_.is_cuda()) {
    cuda::copy_to_device(data_, other.data_, bytes(), stream);
    cuda::sync(stream);  // the source may be freed or written as soon as we return
  } else {
    cuda::copy_to_host(data_, other.data_, bytes(), stream);
    cuda::sync(stream);
  }
}

void Tensor::add(const Tensor& other) {
  require(shape_ == other.shape_ && device_ == other.device_, "add: cannot add {} to {}", other.str(), str());
  if (numel() == 0) return;
  if (device_.is_cuda()) return cuda::add_to(other, *this);
  for_any(other.dtype(), [&](auto f) {
    for_any(dtype_, [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      const From* x = other.data<From>();
      To* y = data<To>();
      parallel_for(numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          if constexpr (std::is_same_v<To, bf16>) {
            y[i] = to_bf16(to_float(y[i]) + convert<float>(x[i]));
          } else {
            y[i] = To(y[i] + convert<To>(x[i]));
          }
        }
      });
    });
  });
}

void Tensor::fill(double value) {
  if (numel() == 0) return;
  if (device_.is_cuda()) return cuda::fill_value(*this, value);
  for_any(dtype_, [&](auto t) {
    using T = decltype(t);
    std::fill_n(data<T>(), numel(), convert<T>(value));
  });
}

void Tensor::fill_bytes(uint8_t byte) {
  if (numel() == 0) return;
  if (device_.is_cuda()) {
    cuda::fill(data_, byte, bytes(), cuda::current_stream());
  } else {
    memset(data_, byte, bytes());
  }
}

}  // namespace modrwkv
