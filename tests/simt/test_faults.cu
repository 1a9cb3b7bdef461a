// Every row of the table of faults: the problem, the kernel, the line, the lanes. MARK(x) notes in x the line
// it stands on, which is the line that the report must name.
#include "simt_test.h"

namespace simt_test {
namespace {

#define MARK(name) name = __LINE__;

unsigned line_a, line_b, line_launch;

bool here(const simt::where& at, unsigned line) { return has(at.file, "test_faults.cu") && at.line == line; }

__global__ void two_barriers() {
  MARK(line_a) if (threadIdx.x < 40) __syncthreads();
  MARK(line_b) if (threadIdx.x >= 40) __syncthreads();
}
TEST_F(Simt, FaultAtTwoDifferentBarriers) {
  expect_fault(
      [] {
        MARK(line_launch) simt::launch<two_barriers>({1, 64, 0, stream()});
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.kernel, "two_barriers")) << f.kernel;
        EXPECT_TRUE(here(f.launched, line_launch));
        EXPECT_TRUE(has(f.problem, "divergent __syncthreads"));
        const bool in_first = f.thread[0] < 40;
        EXPECT_TRUE(here(f.at, in_first ? line_a : line_b));
        EXPECT_TRUE(has(f.problem, ":" + std::to_string(in_first ? line_b : line_a)));
        EXPECT_EQ(f.warp, int(f.thread[0]) / 32);
        EXPECT_EQ(f.lane, int(f.thread[0]) % 32);
      });
  simt::set_schedule(simt::Schedule::ascending);
  const auto f = fault_of([] { simt::launch<two_barriers>({1, 64, 0, stream()}); });
  const std::string text = f->what();
  EXPECT_EQ(f->thread[0], 40u);
  EXPECT_TRUE(has(text, "warp 0: lanes 0-31 wait in __syncthreads at ")) << text;
  EXPECT_TRUE(has(text, "lanes 8 here; lanes 9-31 not started; lanes 0-7 wait in __syncthreads")) << text;
}

__global__ void early_return() {
  if (threadIdx.x == 5) return;
  MARK(line_a) __syncthreads();
}
TEST_F(Simt, FaultWhenAThreadReturnsBeforeABarrier) {
  bool returned_last = false, returned_first = false;
  expect_fault(
      [] {
        simt::launch<early_return>({1, 64, 0, stream()});
      },
      [&](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.kernel, "early_return"));
        EXPECT_TRUE(here(f.at, line_a));
        if (has(f.problem, "thread returned while others wait in __syncthreads")) {
          returned_last = true;
          EXPECT_EQ(f.thread[0], 5u);
        } else {
          returned_first = true;
          EXPECT_TRUE(has(f.problem, "1 of 64 threads have returned")) << f.problem;
          EXPECT_NE(f.thread[0], 5u);
        }
      });
  EXPECT_TRUE(returned_last);
  (void)returned_first;
}

__global__ void barrier_after_return() {
  if (threadIdx.x == 0) return;
  MARK(line_a) __syncthreads();
}
TEST_F(Simt, FaultAtABarrierAfterAReturn) {
  const auto f = fault_of([] { simt::launch<barrier_after_return>({1, 64, 0, stream()}); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(here(f->at, line_a));
  EXPECT_EQ(f->thread[0], 1u);
  EXPECT_TRUE(has(f->problem, "1 of 64 threads have returned"));
  EXPECT_TRUE(has(f->what(), "lanes 0 returned")) << f->what();
}

__global__ void not_in_mask() { MARK(line_a) __shfl_sync(0x0000ffffu, 1, 0); }
TEST_F(Simt, FaultWhenALaneIsNotInItsMask) {
  expect_fault(
      [] {
        simt::launch<not_in_mask>({1, 32, 0, stream()});
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.kernel, "not_in_mask"));
        EXPECT_TRUE(has(f.problem, "calling lane is not in its own mask 0000ffff"));
        EXPECT_TRUE(here(f.at, line_a));
        EXPECT_GE(f.lane, 16);
      });
}

__global__ void reads_outside_mask(int* out) {
  if (threadIdx.x < 16) {
    MARK(line_a) out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1, 16);
  }
}
TEST_F(Simt, FaultWhenAShuffleReadsALaneThatTakesNoPart) {
  Array<int> out(16);
  expect_fault(
      [&] {
        simt::launch<reads_outside_mask>({1, 32, 0, stream()}, out);
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "lane 0 reads lane 16, which is not in mask 0000ffff")) << f.problem;
        EXPECT_TRUE(here(f.at, line_a));
        EXPECT_EQ(f.lane, 0);
      });
}

__global__ void sum_of_48(float* out) { MARK(line_a) out[threadIdx.x] = simt::warp_sum(1.0f); }
__global__ void shuffle_of_48(int* out) { MARK(line_a) out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 16); }
TEST_F(Simt, FaultInAShortWarp) {
  Array<float> out(48);
  expect_fault(
      [&] {
        simt::launch<sum_of_48>({1, 48, 0, stream()}, out);
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "lane 16 does not exist in this warp")) << f.problem;
        EXPECT_TRUE(here(f.at, line_a));
        EXPECT_EQ(f.warp, 1);
      });
  Array<int> ints(48);
  expect_fault(
      [&] {
        simt::launch<shuffle_of_48>({1, 48, 0, stream()}, ints);
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "lane 0 reads lane 16, which does not exist")) << f.problem;
        EXPECT_EQ(f.warp, 1);
      });
}

__global__ void two_places() {
  MARK(line_a) if (threadIdx.x < 16) __syncwarp();
  MARK(line_b) if (threadIdx.x >= 16) __syncwarp();
}
TEST_F(Simt, FaultWhenLanesOfOneMaskAreAtTwoPlaces) {
  expect_fault(
      [] {
        simt::launch<two_places>({1, 32, 0, stream()});
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "deadlock: no thread can run"));
        EXPECT_TRUE(here(f.at, line_a));
        const std::string text = f.what();
        EXPECT_TRUE(has(text, "test_faults.cu:" + std::to_string(line_b))) << text;
        EXPECT_TRUE(has(text, "lanes 16-31 wait in __syncwarp (mask ffffffff)")) << text;
        EXPECT_TRUE(has(text, "lanes 1-15 wait in __syncwarp (mask ffffffff)")) << text;
      });
}

__global__ void barrier_against_shuffle() {
  if (threadIdx.x < 32) {
    MARK(line_a) __syncthreads();
  } else {
    if (threadIdx.x == 32) __syncthreads();
    __syncwarp();
  }
}
TEST_F(Simt, FaultWhenABarrierWaitsForAWarp) {
  expect_fault(
      [] {
        simt::launch<barrier_against_shuffle>({1, 64, 0, stream()});
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "deadlock") || has(f.problem, "divergent")) << f.problem;
      });
}

__global__ void lane_returns() {
  if (threadIdx.x == 3) return;
  MARK(line_a) __syncwarp();
}
TEST_F(Simt, FaultWhenALaneOfTheMaskReturns) {
  expect_fault(
      [] {
        simt::launch<lane_returns>({1, 32, 0, stream()});
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(here(f.at, line_a));
        if (f.thread[0] == 3) {
          EXPECT_TRUE(has(f.problem, "lane returned while others wait for it in __syncwarp")) << f.problem;
        } else {
          EXPECT_TRUE(has(f.problem, "lanes 00000008 of the mask ffffffff have returned")) << f.problem;
        }
      });
  simt::set_schedule(simt::Schedule::ascending);
  EXPECT_EQ(fault_of([] { simt::launch<lane_returns>({1, 32, 0, stream()}); })->lane, 3);
  simt::set_schedule(simt::Schedule::descending);
  EXPECT_EQ(fault_of([] { simt::launch<lane_returns>({1, 32, 0, stream()}); })->lane, 3);
}

__global__ void first_lane_returned() {
  if (threadIdx.x == 0) return;
  MARK(line_a) __syncwarp();
}
TEST_F(Simt, FaultWhenALaneOfTheMaskHasReturned) {
  const auto f = fault_of([] { simt::launch<first_lane_returned>({1, 32, 0, stream()}); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(has(f->problem, "lanes 00000001 of the mask ffffffff have returned")) << f->problem;
  EXPECT_TRUE(here(f->at, line_a));
  EXPECT_EQ(f->lane, 1);
}

__global__ void misaligned_store(float* p) {
  if (threadIdx.x == 2) {
    MARK(line_a) simt::store_as(p + 1, make_float4(0, 0, 0, 0));
  }
}
__global__ void misaligned_load(const float* p, float* out) {
  MARK(line_a) out[threadIdx.x] = simt::load_as<float2>(p + threadIdx.x).x;
}
__global__ void misaligned_matrix() {
  auto& s = simt::shared<float[256]>();
  unsigned r[4];
  MARK(line_a) simt::ldmatrix_x4<false>(r, s + 4 * threadIdx.x + (threadIdx.x == 9));
}
__global__ void misaligned_copy(const float* p) {
  auto& s = simt::shared<float[64]>();
  MARK(line_a) simt::cp_async16(s + 4 * threadIdx.x, p + 4 * threadIdx.x + (threadIdx.x == 1));
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
}
TEST_F(Simt, FaultOnMisalignedVectors) {
  Array<float> p(128), out(32);
  const auto check = [](const char* problem, unsigned thread) {
    return [=](const simt::Fault& f, simt::Schedule) {
      EXPECT_TRUE(has(f.problem, problem)) << f.problem;
      EXPECT_TRUE(here(f.at, line_a)) << f.at.file << f.at.line;
      EXPECT_EQ(f.thread[0], thread);
    };
  };
  expect_fault(
      [&] {
        simt::launch<misaligned_store>({1, 32, 0, stream()}, p);
      },
      check("misaligned 16-byte store at", 2));
  expect_fault(
      [&] {
        simt::launch<misaligned_load>({1, 2, 0, stream()}, p, out);
      },
      check("misaligned 8-byte load at", 1));
  expect_fault(
      [&] {
        simt::launch<misaligned_matrix>({1, 32, 0, stream()});
      },
      check("misaligned 16-byte row at", 9));
  expect_fault(
      [&] {
        simt::launch<misaligned_copy>({1, 2, 0, stream()}, p);
      },
      check("misaligned 16-byte cp.async from", 1));
}

__global__ void copy_not_waited_for(const float* p) {
  auto& s = simt::shared<float[4]>();
  if (threadIdx.x == 1) {
    MARK(line_a) simt::cp_async16(s, p);
    simt::cp_async_commit();
    simt::cp_async_commit();  // an empty group
    simt::cp_async_wait<2>();
  }
}
TEST_F(Simt, FaultWhenACopyIsNotWaitedFor) {
  Array<float> p(4);
  expect_fault(
      [&] {
        simt::launch<copy_not_waited_for>({1, 2, 0, stream()}, p);
      },
      [](const simt::Fault& f, simt::Schedule) {
        EXPECT_TRUE(has(f.problem, "thread returned with 1 cp.async not waited for"));
        EXPECT_TRUE(here(f.at, line_a));
        EXPECT_EQ(f.thread[0], 1u);
      });
}

__global__ void copy_from_host(const float* p) {
  auto& s = simt::shared<float[4]>();
  MARK(line_a) simt::cp_async16(s, p);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
}
TEST_F(Simt, FaultWhenACopyReadsHostMemory) {
  alignas(16) static float host[4];
  const auto f = fault_of([&] { simt::launch<copy_from_host>({1, 1, 0, stream()}, host); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(has(f->problem, "is not in device memory"));
  EXPECT_TRUE(here(f->at, line_a));
}

__global__ void nothing() {}
__global__ void dynamic() { MARK(line_a) simt::dynamic_shared<float>()[0] = 1; }
struct Large {
  float x[12 * 1024 + 1];
};
__global__ void too_much_static() { MARK(line_a) simt::shared<Large>().x[0] = 1; }
struct Fits {
  float x[12 * 1024];
};
__global__ void too_much_together() {
  simt::dynamic_shared<float>()[0] = 1;
  MARK(line_a) simt::shared<Fits>().x[0] = 1;
}

TEST_F(Simt, FaultOnLaunchLimits) {
  const auto expect = [](const std::function<void()>& launch, const char* problem) {
    const auto f = fault_of(launch);
    ASSERT_TRUE(f.has_value()) << problem;
    EXPECT_TRUE(has(f->problem, problem)) << f->problem;
    EXPECT_TRUE(here(f->launched, line_launch)) << f->what();
    EXPECT_TRUE(has(f->what(), "nothing")) << f->what();
  };
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({1, 1025, 0, stream()});
      },
      "1025 threads a block, at most 1024");
  expect([] { MARK(line_launch) simt::launch<nothing>({1, {32, 33}, 0, stream()}); }, "1056 threads a block");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({1, {1, 1, 65}, 0, stream()});
      },
      "block.z is 65, at most 64");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({{1, 65536}, 1, 0, stream()});
      },
      "grid.y is 65536, at most 65535");
  expect([] { MARK(line_launch) simt::launch<nothing>({{1, 1, 65536}, 1, 0, stream()}); }, "grid.z is 65536");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({0, 32, 0, stream()});
      },
      "a grid or block dimension is 0");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({-1, 32, 0, stream()});
      },
      "a grid or block dimension is 0");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({int64_t(1) << 31, 32, 0, stream()});
      },
      "grid.x is 2147483648");
  expect(
      [] {
        MARK(line_launch) simt::launch<nothing>({1, 32, 227 * 1024 + 1, stream()});
      },
      "dynamic shared memory");
  expect([] { MARK(line_launch) simt::launch<nothing>({1, 32, 0, nullptr}); }, "null stream");
}

TEST_F(Simt, FaultOnSharedMemoryLimits) {
  const auto expect = [](const std::function<void()>& launch, const char* problem) {
    const auto f = fault_of(launch);
    ASSERT_TRUE(f.has_value()) << problem;
    EXPECT_TRUE(has(f->problem, problem)) << f->problem;
    EXPECT_TRUE(here(f->at, line_a)) << f->what();
    EXPECT_TRUE(here(f->launched, line_launch)) << f->what();
  };
  expect(
      [] {
        MARK(line_launch) simt::launch<dynamic>({1, 1, 0, stream()});
      },
      "gives no dynamic shared memory");
  expect(
      [] {
        MARK(line_launch) simt::launch<too_much_static>({1, 1, 0, stream()});
      },
      "bytes of static shared memory, at most");
  expect(
      [] {
        MARK(line_launch) simt::launch<too_much_together>({1, 1, 227 * 1024 - 12 * 4096 + 4, stream()});
      },
      "bytes of shared memory, at most");
  EXPECT_FALSE(fault_of([] { simt::launch<dynamic>({1, 1, 4, stream()}); }).has_value());
  EXPECT_FALSE(fault_of([] {
                 simt::launch<too_much_together>({1, 1, 227 * 1024 - 12 * 4096, stream()});
               }).has_value());
}

// In an ASan build these accesses end the process with ASan's own report.
#if !defined(__SANITIZE_ADDRESS__)
__global__ void past_the_end(int offset) {
  auto& a = simt::shared<float[32]>();
  volatile float* p = a;
  if (threadIdx.x == 0) p[offset] = 1;
  __syncthreads();
  simt::shared<float[8]>()[0] = 0;
}
__global__ void past_dynamic() {
  volatile char* p = simt::dynamic_shared<char>();
  p[10] = 1;
}

TEST_F(Simt, FaultOnWritesIntoRedZones) {
  auto f = fault_of([] { simt::launch<past_the_end>({1, 32, 0, stream()}, 33); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(has(f->kernel, "past_the_end"));
  EXPECT_TRUE(has(f->problem, "4 bytes past the end of shared<float")) << f->problem;
  EXPECT_TRUE(has(f->problem, "(128 bytes)")) << f->problem;
  f = fault_of([] { simt::launch<past_the_end>({1, 32, 0, stream()}, -2); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(has(f->problem, "8 bytes before shared<float")) << f->problem;
  f = fault_of([] { simt::launch<past_dynamic>({2, 1, 10, stream()}); });
  ASSERT_TRUE(f.has_value());
  EXPECT_TRUE(has(f->problem, "0 bytes past the end of dynamic_shared (10 bytes)")) << f->problem;
  EXPECT_FALSE(fault_of([] { simt::launch<past_the_end>({1, 32, 0, stream()}, 31); }).has_value());
}
#endif

__global__ void large_locals(float* out, int n) {
  volatile float local[100000];
  for (int i = 0; i < n; ++i) local[i] = float(i);
  out[threadIdx.x] = local[n / 2];
}
__global__ void spin(volatile int* flag) {
  while (*flag == 0) {
  }
}
__global__ void null_store(float* p) { p[threadIdx.x] = 1; }

TEST_F(Simt, DeathNamesTheKernel) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Array<float> out(1);
  Array<int> flag(std::vector<int>{0});
#if defined(__SANITIZE_ADDRESS__)  // the sanitizers' own reports
  const char *overflow = "(stack-overflow|SEGV).*large_locals", *invalid = "null pointer";
#else
  const char* overflow = "large_locals.*block \\(0,0,0\\), thread \\(0,0,0\\).*stack overflow";
  const char* invalid = "null_store.*invalid address";
#endif
  EXPECT_DEATH(fault_of([&] { simt::launch<large_locals>({1, 1, 0, stream()}, out, 100000); }), overflow);
  EXPECT_DEATH(fault_of([&] { simt::launch<null_store>({1, 1, 0, stream()}, nullptr); }), invalid);
  EXPECT_DEATH(
      {
        simt::set_watchdog(0.2);
        fault_of([&] { simt::launch<spin>({1, 1, 0, stream()}, flag); });
      },
      "kernel .*spin .*has been in one block for 0.2 seconds");
}

TEST_F(Simt, WorkGoesOnAfterAFault) {
  for (int i = 0; i < 20; ++i) {
    Array<float> out(64);
    EXPECT_TRUE(fault_of([] { simt::launch<two_barriers>({3, 64, 0, stream()}); }).has_value());
    std::vector<float> x(64, 2.0f);
    const Array<float> in(x);
    EXPECT_FALSE(fault_of([&] { simt::launch<misaligned_load>({1, 1, 0, stream()}, in, out); }).has_value());
    EXPECT_EQ(out.values()[0], 2.0f);
  }
}

TEST_F(Simt, EagerTimingThrowsAtTheLaunch) {
  simt::set_timing(simt::Timing::eager);
  EXPECT_THROW(simt::launch<two_barriers>({1, 64, 0, stream()}), simt::Fault);
  simt::set_timing(simt::Timing::lazy);
  EXPECT_NO_THROW(simt::launch<two_barriers>({1, 64, 0, stream()}));
  EXPECT_THROW(modrwkv::cuda::sync(stream()), modrwkv::Error);
}

}  // namespace
}  // namespace simt_test
