// Threads, barriers and warp collectives compute what CUDA says, under every order; the orders are what they
// claim.
#include <numeric>

#include "simt_test.h"

namespace simt_test {
namespace {

__global__ void many_barriers(int steps, int* out) {
  auto& s = simt::shared<int[1024]>();
  const int t = threadIdx.x, n = blockDim.x;
  s[t] = t;
  __syncthreads();
  for (int i = 0; i < steps; ++i) {
    const int next = s[(t + 1) % n];
    __syncthreads();
    s[t] = next + 1;
    __syncthreads();
  }
  out[blockIdx.x * n + t] = s[t];
}

TEST_F(Simt, AHundredBarriersInABlockOf1024) {
  for (const auto order : kOrders) {
    simt::set_schedule(order, 3);
    for (const int n : {1024, 1000, 33, 1}) {
      Array<int> out(2 * n);
      simt::launch<many_barriers>({2, n, 0, stream()}, 50, out);  // 101 barriers
      const auto got = out.values();
      for (int i = 0; i < 2 * n; ++i)
        ASSERT_EQ(got[i], (i % n + 50) % n + 50) << simt::name_of(order) << " " << i;
    }
  }
}

__global__ void write_order(int* counter, int* order) {
  order[threadIdx.x] = atomicAdd(counter, 1);
  __syncthreads();
  order[blockDim.x + threadIdx.x] = atomicAdd(counter, 1);
}

std::vector<int> order_of(simt::Schedule s, uint64_t seed, int n) {
  simt::set_schedule(s, seed);
  Array<int> counter(std::vector<int>{0}), order(2 * n);
  simt::launch<write_order>({1, n, 0, stream()}, counter, order);
  return order.values();
}

TEST_F(Simt, OrdersAreWhatTheyClaim) {
  const int n = 96;
  const auto up = order_of(simt::Schedule::ascending, 1, n);
  const auto down = order_of(simt::Schedule::descending, 1, n);
  for (int t = 0; t < n; ++t) {
    EXPECT_EQ(up[t], t);
    EXPECT_EQ(up[n + t], n + t);
    EXPECT_EQ(down[t], n - 1 - t);
    EXPECT_EQ(down[n + t], 2 * n - 1 - t);
  }
  const auto breadth = order_of(simt::Schedule::round_robin, 1, n);
  EXPECT_EQ(breadth[0], 0);
  EXPECT_EQ(breadth[32], 1);  // the next warp at every switch
  EXPECT_EQ(breadth[64], 2);
  EXPECT_EQ(breadth[1], 3);
  for (const auto s : {simt::Schedule::greedy, simt::Schedule::shuffled}) {
    const auto a = order_of(s, 1, n);
    EXPECT_EQ(a, order_of(s, 1, n)) << "same seed, same order";
    EXPECT_NE(a, order_of(s, 2, n)) << "another seed, another order";
    EXPECT_NE(a, up);
  }
  const auto greedy = order_of(simt::Schedule::greedy, 5, n);
  for (int warp = 0; warp < 3; ++warp) {  // a warp runs as far as it can
    const auto first = greedy.begin() + 32 * warp;
    EXPECT_EQ(*std::max_element(first, first + 32) - *std::min_element(first, first + 32), 31);
  }
}

__global__ void block_order(int* counter, int* order) { order[blockIdx.x] = atomicAdd(counter, 1); }

TEST_F(Simt, BlocksRunUpwardsAndDownwards) {
  Array<int> counter(std::vector<int>{0}), order(5);
  simt::launch<block_order>({5, 1, 0, stream()}, counter, order);
  EXPECT_EQ(order.values(), (std::vector<int>{0, 1, 2, 3, 4}));
  simt::set_schedule(simt::Schedule::descending);
  simt::launch<block_order>({5, 1, 0, stream()}, counter, order);
  EXPECT_EQ(order.values(), (std::vector<int>{9, 8, 7, 6, 5}));
}

// A missing barrier between a store by thread 0 and the readers: the union of ascending and descending sees it.
__global__ void broadcast_without_barrier(float* out) {
  auto& s = simt::shared<float>();
  if (threadIdx.x == 0) s = 1;
  out[threadIdx.x] = s;
  __syncthreads();
}

TEST_F(Simt, AMissingBarrierGivesNanInTheOtherOrder) {
  int wrong[2] = {};
  for (int i = 0; i < 2; ++i) {
    simt::set_schedule(i == 0 ? simt::Schedule::ascending : simt::Schedule::descending);
    Array<float> out(64);
    simt::launch<broadcast_without_barrier>({1, 64, 0, stream()}, out);
    for (const float x : out.values()) wrong[i] += x != 1;
  }
  EXPECT_EQ(wrong[0], 0);
  EXPECT_EQ(wrong[1], 63);
}

__global__ void dimensions(int* out) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + simt::thread_rank()] =
      int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.x + 10000 * blockIdx.y +
          100000 * blockIdx.z);
}

TEST_F(Simt, IndicesRunThroughGridAndBlock) {
  Array<int> out(2 * 3 * 2 * 5 * 3 * 2);
  simt::launch<dimensions>({{2, 3, 2}, {5, 3, 2}, 0, stream()}, out);
  const auto got = out.values();
  size_t i = 0;
  for (int bz = 0; bz < 2; ++bz)
    for (int by = 0; by < 3; ++by)
      for (int bx = 0; bx < 2; ++bx)
        for (int z = 0; z < 2; ++z)
          for (int y = 0; y < 3; ++y)
            for (int x = 0; x < 5; ++x)
              ASSERT_EQ(got[i++], x + 10 * y + 100 * z + 1000 * bx + 10000 * by + 100000 * bz);
}

struct Shuffled {
  int get, up, down, flip, narrow;
  double wide;
  unsigned ballot;
  int any, all;
};

__global__ void shuffles(Shuffled* out) {
  const int lane = threadIdx.x;
  Shuffled r;
  r.get = __shfl_sync(~0u, 100 + lane, 7);
  r.up = __shfl_up_sync(~0u, 100 + lane, 3);
  r.down = __shfl_down_sync(~0u, 100 + lane, 5);
  r.flip = __shfl_xor_sync(~0u, 100 + lane, 9);
  r.narrow = __shfl_sync(~0u, 100 + lane, 2, 8);
  r.wide = __shfl_xor_sync(~0u, 0.1 + lane, 16);
  r.ballot = __ballot_sync(~0u, lane % 3 == 0);
  r.any = __any_sync(~0u, lane == 31);
  r.all = __all_sync(~0u, lane < 31);
  out[lane] = r;
}

TEST_F(Simt, ShufflesAndVotes) {
  unsigned thirds = 0;
  for (int l = 0; l < 32; l += 3) thirds |= 1u << l;
  for (const auto order : kOrders) {
    simt::set_schedule(order);
    Array<Shuffled> out(32);
    simt::launch<shuffles>({1, 32, 0, stream()}, out);
    const auto got = out.values();
    for (int l = 0; l < 32; ++l) {
      EXPECT_EQ(got[l].get, 107);
      EXPECT_EQ(got[l].up, l < 3 ? 100 + l : 97 + l);
      EXPECT_EQ(got[l].down, l > 26 ? 100 + l : 105 + l);
      EXPECT_EQ(got[l].flip, 100 + (l ^ 9));
      EXPECT_EQ(got[l].narrow, 100 + l / 8 * 8 + 2);
      EXPECT_EQ(got[l].wide, 0.1 + (l ^ 16));
      EXPECT_EQ(got[l].ballot, thirds);
      EXPECT_EQ(got[l].any, 1);
      EXPECT_EQ(got[l].all, 0);
    }
  }
}

// Legal: half-warps with masks of their own, and lanes that are ahead of the others.
__global__ void half_warps(int* out) {
  const int lane = threadIdx.x;
  int v = lane;
  if (lane < 16) {
    v = __shfl_xor_sync(0x0000ffffu, v, 1);
    v = __shfl_xor_sync(0x0000ffffu, v, 2);
  } else {
    v = __shfl_xor_sync(0xffff0000u, v, 4);
  }
  if (lane < 16) v += __shfl_sync(0x0000ffffu, v, 0);
  v += __shfl_sync(~0u, v, 31);
  out[lane] = v;
}

TEST_F(Simt, DisjointMasksAndLanesAhead) {
  for (const auto order : kOrders) {
    simt::set_schedule(order);
    Array<int> out(32);
    simt::launch<half_warps>({1, 32, 0, stream()}, out);
    const auto got = out.values();
    for (int l = 0; l < 32; ++l) EXPECT_EQ(got[l], (l < 16 ? (l ^ 3) + 3 : l ^ 4) + (31 ^ 4)) << l;
  }
}

__global__ void reductions(const float* x, float* out) {
  const int t = simt::thread_rank(), n = blockDim.x * blockDim.y;
  float sum = x[t], butterfly = x[t];
  for (int step = 16; step > 0; step /= 2) butterfly += __shfl_xor_sync(~0u, butterfly, step);
  out[t] = simt::warp_sum(sum) == butterfly;
  for (int i = 0; i < 3; ++i) sum = simt::block_sum(i == 0 ? sum : sum / float(n));  // called repeatedly
  out[n + t] = sum;
  out[2 * n + t] = simt::block_max(-x[t]);
}

TEST_F(Simt, ReductionsOverWarpAndBlock) {
  for (const auto order : kOrders) {
    simt::set_schedule(order, 9);
    for (const int n : {32, 64, 224, 1024}) {
      std::vector<float> x(n);
      for (int i = 0; i < n; ++i) x[i] = float((i * 37) % 101) + 0.25f;
      const Array<float> in(x);
      Array<float> out(3 * n);
      simt::launch<reductions>({1, {n / 2, 2}, 0, stream()}, in, out);
      const auto got = out.values();
      const double sum = std::accumulate(x.begin(), x.end(), 0.0);
      for (int t = 0; t < n; ++t) {
        EXPECT_EQ(got[t], 1) << "the same bits as the butterfly";
        EXPECT_NEAR(got[n + t], sum, sum * 1e-6);
        EXPECT_EQ(got[n + t], got[n]);
        EXPECT_EQ(got[2 * n + t], -*std::min_element(x.begin(), x.end()));
      }
    }
  }
}

__global__ void nan_max(float* out) {
  out[threadIdx.x] = simt::block_max(threadIdx.x == 37 ? NAN : float(threadIdx.x));
}
TEST_F(Simt, NanIsNotLostInAMaximum) {
  Array<float> out(64);
  simt::launch<nan_max>({1, 64, 0, stream()}, out);
  for (const float x : out.values()) EXPECT_NE(x, x);
}

__global__ void atomics(float* f, int* i, unsigned* u, unsigned long long* w, int* most, int* least) {
  atomicAdd(f, 0.5f);
  atomicAdd(i, -1);
  atomicAdd(u, 2);
  atomicAdd(w, 1ull << 33);
  atomicMax(most, int(threadIdx.x));
  atomicMin(least, -int(threadIdx.x));
}
TEST_F(Simt, Atomics) {
  const Array<float> f(std::vector<float>{1});
  const Array<int> i(std::vector<int>{0}), most(std::vector<int>{3}), least(std::vector<int>{3});
  const Array<unsigned> u(std::vector<unsigned>{0});
  const Array<unsigned long long> w(std::vector<unsigned long long>{0});
  simt::launch<atomics>({4, 50, 0, stream()}, f, i, u, w, most, least);
  EXPECT_EQ(f.values()[0], 101);
  EXPECT_EQ(i.values()[0], -200);
  EXPECT_EQ(u.values()[0], 400u);
  EXPECT_EQ(w.values()[0], 200ull << 33);
  EXPECT_EQ(most.values()[0], 49);
  EXPECT_EQ(least.values()[0], -49);
}

// Shared memory is poisoned in every block, and distinct by type and Tag.
__global__ void shared_memory(uint8_t* first, bool* distinct) {
  auto& a = simt::shared<int[33]>();
  auto& b = simt::shared<int[33], 1>();
  auto* d = simt::dynamic_shared<uint8_t>();
  if (threadIdx.x == 0) {
    uint8_t all = 0xff;
    for (size_t i = 0; i < sizeof a; ++i) all &= reinterpret_cast<uint8_t*>(&a)[i];
    for (int i = 0; i < 100; ++i) all &= d[i];
    first[blockIdx.x] = all;
    auto& again = simt::shared<int[33]>();
    *distinct = &a != &b && &a == &again && uintptr_t(d) % 128 == 0;
  }
  __syncthreads();
  a[threadIdx.x] = b[threadIdx.x] = d[threadIdx.x] = 0;
}
TEST_F(Simt, SharedMemoryStartsAsNan) {
  Array<uint8_t> first(3);
  Array<bool> distinct(1);
  simt::launch<shared_memory>({3, 33, 100, stream()}, first, distinct);
  EXPECT_EQ(first.values(), (std::vector<uint8_t>{0xff, 0xff, 0xff}));
  bool d = false;
  modrwkv::cuda::copy_to_host(&d, distinct, 1, stream());
  modrwkv::cuda::sync(stream());
  EXPECT_TRUE(d);
}

}  // namespace
}  // namespace simt_test
