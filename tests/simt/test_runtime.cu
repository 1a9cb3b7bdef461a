// The emulated device layer: streams, events and memory catch the host code that forgets to wait.
#include <cmath>
#include <thread>

#include "simt_test.h"

namespace simt_test {
namespace {

using namespace modrwkv::cuda;
using modrwkv::Error;

__global__ void add_one(int n, const float* x, float* y) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = x[i] + 1;
}

class Runtime : public Simt {
 protected:
  void SetUp() override {
    Simt::SetUp();
    a_ = create_stream();
    b_ = create_stream();
  }
  void TearDown() override {
    Simt::TearDown();
    destroy(a_);
    destroy(b_);
  }
  float* floats(int n) { return static_cast<float*>(alloc(size_t(n) * 4, a_)); }
  std::string error_of(const std::function<void()>& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  Stream a_ = nullptr, b_ = nullptr;
};

constexpr simt::Timing kTimings[] = {simt::Timing::lazy, simt::Timing::eager, simt::Timing::random};

// One right program under every timing; each of the four tests below leaves one wait of it out.
TEST_F(Runtime, RightProgramsGiveRightResultsUnderEveryTiming) {
  for (const auto timing : kTimings) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      simt::set_timing(timing, seed);
      std::vector<float> host{1, 2, 3}, back(3);
      float *x = floats(3), *y = floats(3), *z = floats(3);
      const Event written = create_event(), used = create_event();
      copy_to_device(x, host.data(), 12, a_);
      simt::launch<add_one>({1, 32, 0, a_}, 3, x, y);
      record(written, a_);
      wait(b_, written);
      simt::launch<add_one>({1, 32, 0, b_}, 3, y, z);
      copy_to_host(back.data(), z, 12, b_);
      record(used, b_);
      wait(a_, used);
      free(y, a_);
      sync(used);
      host.assign(3, 0);
      EXPECT_EQ(back, (std::vector<float>{3, 4, 5}));
      free(x, a_);
      free(z, a_);
      sync(a_);
      destroy(written);
      destroy(used);
    }
  }
}

// Each returns whether the program with a wait left out gives another result than the right one.
bool host_reads_without_sync(Stream s) {
  std::vector<float> back(1, 0.0f), one{1};
  float *x = static_cast<float*>(alloc(4, s)), *y = static_cast<float*>(alloc(4, s));
  copy_to_device(x, one.data(), 4, s);
  simt::launch<add_one>({1, 1, 0, s}, 1, x, y);
  copy_to_host(back.data(), y, 4, s);
  const float got = back[0];
  sync(s);
  free(x, s);
  free(y, s);
  sync(s);
  return got != 2.0f;
}
bool streams_without_event(Stream a, Stream b) {
  std::vector<float> back(1), one{1};
  float *x = static_cast<float*>(alloc(4, a)), *y = static_cast<float*>(alloc(4, a)),
        *z = static_cast<float*>(alloc(4, a));
  copy_to_device(x, one.data(), 4, a);
  simt::launch<add_one>({1, 1, 0, a}, 1, x, y);
  simt::launch<add_one>({1, 1, 0, b}, 1, y, z);
  copy_to_host(back.data(), z, 4, b);
  sync(b);
  sync(a);
  for (float* p : {x, y, z}) free(p, a);
  sync(a);
  return back[0] != 3.0f;
}
bool source_overwritten(Stream s) {
  std::vector<float> source{1}, back(1);
  float* x = static_cast<float*>(alloc(4, s));
  copy_to_device(x, source.data(), 4, s);
  source[0] = 50;
  copy_to_host(back.data(), x, 4, s);
  sync(s);
  free(x, s);
  sync(s);
  return back[0] != 1.0f;
}
bool freed_on_another_stream(Stream a, Stream b) {
  std::vector<float> back(1), one{1};
  float *x = static_cast<float*>(alloc(4, a)), *y = static_cast<float*>(alloc(4, a));
  copy_to_device(x, one.data(), 4, a);
  sync(a);
  simt::launch<add_one>({1, 1, 0, a}, 1, x, y);
  free(x, b);  // nothing orders this behind the kernel
  sync(b);
  copy_to_host(back.data(), y, 4, a);
  sync(a);
  free(y, a);
  sync(a);
  return back[0] != 2.0f;
}

TEST_F(Runtime, LazyTimingShowsEveryMissingWait) {
  EXPECT_TRUE(host_reads_without_sync(a_));
  EXPECT_TRUE(streams_without_event(a_, b_));
  EXPECT_TRUE(source_overwritten(a_));
#if !defined(__SANITIZE_ADDRESS__)  // there the read of freed memory ends the process
  EXPECT_TRUE(freed_on_another_stream(a_, b_));
#endif
}
TEST_F(Runtime, EagerTimingShowsNoneOfThem) {
  simt::set_timing(simt::Timing::eager);
  EXPECT_FALSE(host_reads_without_sync(a_));
  EXPECT_FALSE(streams_without_event(a_, b_));
  EXPECT_FALSE(source_overwritten(a_));
  EXPECT_FALSE(freed_on_another_stream(a_, b_));
}
TEST_F(Runtime, RandomTimingShowsEachWithSomeSeed) {
  bool shown[3] = {};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    simt::set_timing(simt::Timing::random, seed);
    shown[0] |= host_reads_without_sync(a_);
    shown[1] |= streams_without_event(a_, b_);
    shown[2] |= source_overwritten(a_);
  }
  EXPECT_TRUE(shown[0] && shown[1] && shown[2]);
}

TEST_F(Runtime, EventsTellWhetherTheirWorkIsDone) {
  const Event e = create_event();
  EXPECT_TRUE(done(e)) << "never recorded";
  float* x = floats(1);
  for (int i = 0; i < 3; ++i) fill(x, 0, 4, a_);
  record(e, a_);
  EXPECT_FALSE(done(e));
  int polls = 0;
  while (!done(e)) ASSERT_LT(++polls, 10) << "a loop that polls must end";
  fill(x, 0, 4, a_);
  EXPECT_TRUE(done(e)) << "work recorded later does not count";
  sync(e);
  free(x, a_);
  sync(a_);
  destroy(e);
}

TEST_F(Runtime, FreshMemoryIsNanAlsoAfterReuse) {
  constexpr int n = 5000;  // a size that no other test uses
  std::vector<float> zeros(n), back(n);
  float* first = floats(n);
  copy_to_host(back.data(), first, 4 * n, a_);
  sync(a_);
  for (const float x : back) EXPECT_TRUE(std::isnan(x));
  back.assign(n, 0);
  copy_to_device(first, zeros.data(), 4 * n, a_);
  free(first, a_);
  sync(a_);
  float* second = floats(n);
  EXPECT_EQ(first, second) << "memory is used again once the queued free has run";
  EXPECT_EQ(uintptr_t(second) % 256, 0u);
  copy_to_host(back.data(), second, 4 * n, a_);
  sync(a_);
  for (const float x : back) EXPECT_TRUE(std::isnan(x));
  free(second, a_);
  float* third = floats(n);
  EXPECT_NE(second, third) << "the free has not run";
  free(third, a_);
  sync(a_);
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_F(Runtime, WritesPastAnAllocationAreFoundAtSyncAndFree) {
  float *x = floats(10), *y = floats(11);
  simt::launch<add_one>({1, 32, 0, a_}, 11, y, x);
  EXPECT_TRUE(has(error_of([&] { sync(a_); }), "byte 40 of an allocation of 40 bytes was written"));
  free(x, a_);
  EXPECT_TRUE(has(error_of([&] { sync(a_); }), "byte 40 of an allocation of 40 bytes was written"));
  free(y, a_);
  EXPECT_EQ(error_of([&] { sync(a_); }), "no error");
}

TEST_F(Runtime, WritesIntoFreedMemoryAreFoundAtReuse) {
  float *x = floats(6000), *y = floats(1);
  free(x, a_);
  sync(a_);
  fill(y, 0, 4, a_);
  simt::launch<add_one>({1, 1, 0, a_}, 1, y, x);
  sync(a_);
  EXPECT_TRUE(has(error_of([&] { floats(6000); }), "of freed memory was written"));
  free(y, a_);
  sync(a_);
}
#endif

TEST_F(Runtime, CopiesMustLieInOneLiveAllocation) {
  std::vector<float> host(100);
  float *x = floats(10), *y = floats(10);
  EXPECT_TRUE(has(error_of([&] { copy_to_device(x, host.data(), 44, a_); }),
                  "copy_to_device: 44 bytes from offset 0 do not fit"));
  EXPECT_TRUE(has(error_of([&] { copy_to_host(host.data(), x + 5, 24, a_); }),
                  "copy_to_host: 24 bytes from offset 20"));
  EXPECT_TRUE(has(error_of([&] { fill(x + 11, 0, 1, a_); }), "not in a live allocation"));
  EXPECT_TRUE(has(error_of([&] { copy_on_device(x, x + 5, 24, a_); }), "do not fit"));
  EXPECT_TRUE(has(error_of([&] { copy_on_device(x, x + 2, 24, a_); }), "overlap"));
  EXPECT_TRUE(has(error_of([&] { copy_on_device(x, host.data(), 4, a_); }), "is not device memory"));
  EXPECT_TRUE(has(error_of([&] { copy_to_device(x, y, 4, a_); }), "is device memory, expected host memory"));
  EXPECT_TRUE(has(error_of([&] { copy_to_host(y, x, 4, a_); }), "is device memory, expected host memory"));
  free(x, a_);
  EXPECT_TRUE(has(error_of([&] { fill(x, 0, 4, a_); }), "was freed"));
  EXPECT_TRUE(has(error_of([&] { free(x, a_); }), "was freed before"));
  EXPECT_TRUE(has(error_of([&] { free(y + 1, a_); }), "not the start of an allocation"));
  sync(a_);
  EXPECT_TRUE(has(error_of([&] { fill(x, 0, 4, a_); }), "not in a live allocation"));
  free(y, a_);
  free(nullptr, a_);
  sync(a_);
}

TEST_F(Runtime, TheNullStreamAndDestroyedOnesAreRefused) {
  EXPECT_TRUE(has(error_of([&] { alloc(4, nullptr); }), "alloc: the null stream"));
  EXPECT_TRUE(has(error_of([&] { sync(Stream(nullptr)); }), "sync: the null stream"));
  const Stream s = create_stream();
  float* x = floats(1);
  fill(x, 0, 4, s);
  destroy(s);
  EXPECT_TRUE(has(error_of([&] { sync(s); }), "sync: the stream was destroyed"));
  sync_all();  // runs the work it still had
  float back = 1;
  copy_to_host(&back, x, 4, a_);
  sync(a_);
  EXPECT_EQ(back, 0);
  free(x, a_);
}

__global__ void diverge() {
  if (threadIdx.x == 0) return;
  __syncthreads();
}
TEST_F(Runtime, AFaultEmptiesTheQueuesButGivesMemoryBack) {
  float* x = floats(7000);
  simt::launch<diverge>({1, 32, 0, a_});
  fill(x, 0, 28, b_);
  free(x, a_);
  EXPECT_THROW(sync(a_), simt::Fault);
  EXPECT_EQ(error_of([&] { sync_all(); }), "no error");
  float* y = floats(7000);
  EXPECT_EQ(x, y);
  free(y, a_);
}

TEST_F(Runtime, PinnedMemoryMayBeFreedWhileCopiesAreQueued) {
  float* pinned = static_cast<float*>(alloc_host(4));
  *pinned = 3;
  float *x = floats(1), back = 0;
  copy_to_device(x, pinned, 4, a_);
  free_host(pinned);
  copy_to_host(&back, x, 4, a_);
  sync(a_);
  EXPECT_EQ(back, 3);
  EXPECT_TRUE(has(error_of([&] { free_host(&back); }), "not pinned"));
  free(x, a_);
}

TEST_F(Runtime, EveryHostThreadHasAStreamOfItsOwn) {
  Stream streams[2] = {};
  float got[2] = {};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      streams[t] = current_stream();
      float one = float(10 * t), *x = static_cast<float*>(alloc(4, streams[t]));
      copy_to_device(x, &one, 4, streams[t]);
      for (int i = 0; i < 100; ++i) simt::launch<add_one>({1, 32, 0, streams[t]}, 1, x, x);
      copy_to_host(&got[t], x, 4, streams[t]);
      free(x, streams[t]);
      sync(streams[t]);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_NE(streams[0], streams[1]);
  EXPECT_EQ(got[0], 100);
  EXPECT_EQ(got[1], 110);
}

TEST_F(Runtime, ItSaysThatItIsTheEmulator) {
  EXPECT_TRUE(available());
  EXPECT_EQ(why_unavailable(), "");
  EXPECT_EQ(device_count(), 1);
  EXPECT_EQ(properties(0).name, "SIMT emulator");
  EXPECT_TRUE(properties(0).emulated);
  EXPECT_TRUE(has(error_of([] { set_device(1); }), "device 1 of 1"));
}

// Matrix products in all storage orders and types, against double.
template <class In, class Out>
void check_matmul(bool trans_a, bool trans_b, bool with_bias, float beta, Stream s) {
  const int m = 5, n = 7, k = 11, batch = 3, pad = 8;
  const int a_rows = trans_a ? k : m, a_columns = trans_a ? m : k, b_rows = trans_b ? n : k,
            b_columns = trans_b ? k : n;
  Matmul p;
  p.trans_a = trans_a, p.trans_b = trans_b;
  p.m = m, p.n = n, p.k = k, p.batch = batch;
  p.lda = a_columns + pad, p.ldb = b_columns + pad, p.ldc = n + pad;
  p.stride_a = a_rows * p.lda, p.stride_b = b_rows * p.ldb, p.stride_c = m * p.ldc;
  p.input = modrwkv::DTypeOf<In>::value, p.output = p.bias_type = modrwkv::DTypeOf<Out>::value;
  p.beta = beta;
  const auto values = [](auto zero, int64_t count, int seed) {
    using T = decltype(zero);
    std::vector<T> x(static_cast<size_t>(count));
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = simt::from_float<T>(float((int(i) * 7 + seed) % 13 - 6) / 4.0f);
    return x;
  };
  const auto a = values(In{}, batch * p.stride_a, 1), b = values(In{}, batch * p.stride_b, 2);
  const auto c = values(Out{}, batch * p.stride_c, 3), bias = values(Out{}, n, 4);
  const Array<In> da(a, s), db(b, s);
  const Array<Out> dc(c, s), dbias(bias, s);
  p.a = da, p.b = db, p.c = dc, p.bias = with_bias ? static_cast<const Out*>(dbias) : nullptr;
  matmul(p, s);
  const auto got = dc.values();
  for (int q = 0; q < batch; ++q) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < p.ldc; ++j) {
        const size_t at = size_t(q * p.stride_c + i * p.ldc + j);
        const double before = double(simt::to_float(c[at]));
        double expected = before;
        if (j < n) {
          expected = double(beta) * before + (with_bias ? double(simt::to_float(bias[size_t(j)])) : 0.0);
          for (int64_t l = 0; l < k; ++l) {
            expected +=
                double(simt::to_float(a[size_t(q * p.stride_a + (trans_a ? l * p.lda + i : i * p.lda + l))])) *
                double(simt::to_float(b[size_t(q * p.stride_b + (trans_b ? j * p.ldb + l : l * p.ldb + j))]));
          }
        }
        const double rounding = sizeof(Out) == 2 ? 1.0 / 256 : 1e-6;
        ASSERT_NEAR(double(simt::to_float(got[at])), expected, rounding * std::fmax(1.0, std::fabs(expected)));
      }
    }
  }
}

TEST_F(Runtime, Matmul) {
  for (int i = 0; i < 16; ++i) {
    const bool ta = i & 1, tb = i & 2, bias = i & 4;
    const float beta = i & 8 ? 1.0f : 0.0f;
    check_matmul<float, float>(ta, tb, bias, beta, a_);
    check_matmul<simt::bf16, float>(ta, tb, bias, beta, a_);
    check_matmul<simt::bf16, simt::bf16>(ta, tb, bias, beta, a_);
  }
}

TEST_F(Runtime, MatmulRefusesWhatTheLibraryWould) {
  float* x = floats(64);
  Matmul p;
  p.m = p.n = p.k = 4;
  p.lda = p.ldb = p.ldc = 4;
  p.a = x, p.b = x + 16, p.c = x + 32;
  EXPECT_EQ(error_of([&] { matmul(p, a_); }), "no error");
  const auto with = [&](auto change) {
    Matmul q = p;
    change(q);
    return error_of([&] { matmul(q, a_); });
  };
  EXPECT_TRUE(has(with([](Matmul& q) { q.lda = 3; }), "matmul: A is stored [4, 4] but its row stride is 3"));
  EXPECT_TRUE(has(with([](Matmul& q) { q.ldc = 3; }), "matmul: C is stored"));
  EXPECT_TRUE(has(with([](Matmul& q) { q.b = nullptr; }), "matmul: B is null"));
  EXPECT_TRUE(has(with([&](Matmul& q) { q.c = x + 60; }), "do not fit"));
  EXPECT_TRUE(has(with([](Matmul& q) { q.output = modrwkv::DType::bf16; }), "cannot give"));
  EXPECT_TRUE(has(with([](Matmul& q) { q.input = modrwkv::DType::f64; }), "inputs are f64"));
  EXPECT_TRUE(has(with([&](Matmul& q) {
                    q.input = modrwkv::DType::bf16;
                    q.a = x + 1;
                  }),
                  "expected a multiple of 16 bytes"));
  EXPECT_TRUE(has(with([](Matmul& q) { q.batch = 2; }), "overlap"));
  EXPECT_TRUE(has(with([&](Matmul& q) {
                    q.bias = x;
                    q.bias_type = modrwkv::DType::bf16;
                  }),
                  "the bias is bf16, expected f32 like C"));
  EXPECT_TRUE(has(with([&](Matmul& q) {
                    q.k = 0;
                    q.bias = x;
                  }),
                  "k = 0 with a bias"));
  EXPECT_EQ(with([](Matmul& q) { q.m = 0; }), "no error");
  sync(a_);
  free(x, a_);
}

}  // namespace
}  // namespace simt_test
