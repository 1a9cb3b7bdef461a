#include <cmath>
#include <limits>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/tensor.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

TEST(Tensor, ViewsShareStorage) {
  const Tensor t = Tensor::from<float>({0, 1, 2, 3, 4, 5}, {3, 2});
  const Tensor rows = t.slice(1, 3), flat = t.reshape({-1});
  EXPECT_EQ(rows.shape(), (Shape{2, 2}));
  EXPECT_EQ(rows.data<float>()[0], 2);
  flat.data<float>()[5] = 9;
  EXPECT_EQ(rows.data<float>()[3], 9);
  EXPECT_TRUE(rows.same_storage(flat));
}

TEST(Tensor, RefusesWhatDoesNotFit) {
  const Tensor t = Tensor::zeros({3, 2});
  expect_error([&] { t.reshape({4, 2}); }, "reshape: [3, 2] does not fit [4, 2]");
  expect_error([&] { t.reshape({-1, 4}); }, "reshape: [3, 2] does not fit [-1, 4]");
  expect_error([&] { t.slice(2, 4); }, "slice: rows [2, 4) of [3, 2]");
  expect_error([&] { t.data<double>(); }, "element type is f32, expected f64");
  expect_error([&] { Tensor::zeros({2, -1}); }, "negative size");
  expect_error([&] { (void)t.size(2); }, "axis 2");
  expect_error([&] { Tensor::zeros({2}).copy_from(t); }, "shapes differ");
}

TEST(Tensor, Bf16RoundsToNearestEven) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {1.0f, 1.0f + 1.0f / 256, 1.0f + 3.0f / 256, -2.5f, 3.4e38f, inf, 0x1p-133f,
                                0.0f};
  const std::vector<uint16_t> expected = {0x3f80, 0x3f80, 0x3f82, 0xc020, 0x7f80, 0x7f80, 0x0001, 0x0000};
  const Tensor t = Tensor::from<float>(x, {int64_t(x.size())}).to(DType::bf16);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(t.data<bf16>()[i].bits, expected[i]) << x[i];
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::nanf("")))));
  for (uint32_t word = 0; word < 0x10000; ++word) {  // every bf16 survives the way through float
    const float f = to_float(bf16{uint16_t(word)});
    if (!std::isnan(f)) {
      ASSERT_EQ(to_bf16(f).bits, word);
    }
  }
}

TEST(Tensor, AddsMixedTypes) {
  Tensor sum = Tensor::from<float>({1, 2}, {2});
  sum.add(Tensor::from<float>({0.5f, -4}, {2}).to(DType::bf16));
  EXPECT_EQ(sum.to_vector<float>(), (std::vector<float>{1.5f, -2}));
}

TEST(Tensor, MovesToCudaAndBack) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device gpu{DeviceType::cuda, 0};
  const Tensor x = random_tensor({1025}, 1).to(DType::f32), y = random_tensor({1025}, 2).to(DType::f32);
  for (const std::string& order : cuda::thread_orders()) {
    cuda::set_thread_order(order);
    EXPECT_EQ(x.to(gpu).to_vector<float>(), x.to_vector<float>());
    const auto floats = [](const Tensor& t) { return t.to(kCpu).to(DType::f32).to_vector<float>(); };
    EXPECT_EQ(floats(x.to(gpu).to(DType::bf16)), floats(x.to(DType::bf16)));
    EXPECT_EQ(floats(x.to(DType::bf16).to(gpu).to(DType::f32)), floats(x.to(DType::bf16)));
    for (const DType from : {DType::f32, DType::bf16}) {
      for (const DType to : {DType::f32, DType::bf16}) {
        Tensor here = y.to(to).clone(), there = here.to(gpu);
        here.add(x.to(from));
        there.add(x.to(from).to(gpu));
        EXPECT_EQ(floats(there), floats(here)) << order << " " << name_of(from) << " -> " << name_of(to);
      }
    }
    for (const DType type : {DType::f32, DType::bf16})
      EXPECT_EQ(floats(Tensor::full({70}, -2.5, type, gpu)), std::vector<float>(70, -2.5f));
    EXPECT_EQ(Tensor::full({70}, -7, DType::i32, gpu).to_vector<int32_t>(), std::vector<int32_t>(70, -7));
  }
  cuda::set_thread_order(cuda::thread_orders().front());
}

TEST(Memory, IsCountedByTagAndReused) {
  reset_memory_peaks();
  const int64_t before = memory_use(DeviceType::cpu, MemoryTag::workspace).current;
  const void* first;
  {
    const MemoryScope scope(MemoryTag::workspace);
    const Tensor t = Tensor::empty({1000});
    first = t.raw();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    EXPECT_EQ(memory_use(DeviceType::cpu, MemoryTag::workspace).current, before + 4000);
  }
  EXPECT_EQ(memory_use(DeviceType::cpu, MemoryTag::workspace).current, before);
  EXPECT_GE(memory_use(DeviceType::cpu, MemoryTag::workspace).peak, before + 4000);
  EXPECT_EQ(Tensor::empty({1000}).raw(), first);
}

TEST(Device, IsRefusedByName) {
  expect_error([] { parse_device("gpu"); }, "--device gpu: expected cpu, cuda or cuda:N");
  expect_error([] { parse_device("cuda:"); }, "--device cuda:: expected");
  EXPECT_EQ(parse_device("cpu"), kCpu);
  if (cuda::available()) {
    expect_error([] { parse_device("cuda:99"); }, "--device cuda:99: this machine has");
  } else {
    expect_error([] { parse_device("cuda"); }, "--device cuda: ");
  }
}
