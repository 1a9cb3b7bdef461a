// What the emulator's own tests share: device arrays, runs under every order, and faults caught and looked
// into.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/simt/emulator.h"
#include "core/simt/simt.h"

namespace simt_test {

using modrwkv::cuda::Stream;

constexpr simt::Schedule kOrders[] = {simt::Schedule::ascending, simt::Schedule::descending,
                                      simt::Schedule::greedy, simt::Schedule::shuffled,
                                      simt::Schedule::round_robin};

inline Stream stream() { return modrwkv::cuda::current_stream(); }

template <class T>
class Array {
 public:
  explicit Array(size_t n, Stream s = stream())
      : n_(n), stream_(s), p_(static_cast<T*>(modrwkv::cuda::alloc(n * sizeof(T), s))) {}
  explicit Array(const std::vector<T>& values, Stream s = stream()) : Array(values.size(), s) {
    modrwkv::cuda::copy_to_device(p_, values.data(), n_ * sizeof(T), s);
    modrwkv::cuda::sync(s);
  }
  ~Array() { modrwkv::cuda::free(p_, stream_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  operator T*() const { return p_; }
  std::vector<T> values() const {
    std::vector<T> v(n_);
    modrwkv::cuda::copy_to_host(v.data(), p_, n_ * sizeof(T), stream_);
    modrwkv::cuda::sync(stream_);
    return v;
  }

 private:
  size_t n_;
  Stream stream_;
  T* p_;
};

// Settings of one test; back to the defaults at its end.
class Simt : public testing::Test {
 protected:
  void SetUp() override { reset(); }
  void TearDown() override {
    reset();
    modrwkv::cuda::sync_all();
  }
  static void reset() {
    simt::set_schedule(simt::Schedule::ascending);
    simt::set_timing(simt::Timing::lazy);
    simt::set_copies(simt::Copies::late);
  }
};

inline std::optional<simt::Fault> fault_of(const std::function<void()>& launch) {
  try {
    launch();
    modrwkv::cuda::sync(stream());
  } catch (const simt::Fault& f) {
    return f;
  }
  return std::nullopt;
}

// The fault that the launch must cause under every order: check(fault, order).
inline void expect_fault(const std::function<void()>& launch,
                         const std::function<void(const simt::Fault&, simt::Schedule)>& check) {
  for (const simt::Schedule order : kOrders) {
    SCOPED_TRACE(simt::name_of(order));
    simt::set_schedule(order);
    const auto fault = fault_of(launch);
    ASSERT_TRUE(fault.has_value()) << "no fault";
    SCOPED_TRACE(fault->what());
    check(*fault, order);
  }
  simt::set_schedule(simt::Schedule::ascending);
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace simt_test
