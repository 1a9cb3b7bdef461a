#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>

#include "data/loader.h"

using namespace modrwkv;

namespace {

void pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

template <class Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) pause(1);
  return condition();
}

}  // namespace

TEST(Loader, KeepsTheOrderFromAnyStart) {
  for (const int64_t first : {int64_t(0), int64_t(7), int64_t(1) << 40}) {
    Loader<int64_t> loader([](int64_t k) { return k * 3; }, first);
    for (int64_t k = first; k < first + 500; ++k) ASSERT_EQ(loader.next(), k * 3);
  }
}

TEST(Loader, WorksAheadButNotFar) {
  std::atomic<int> made = 0;
  Loader<int> loader([&](int64_t) { return ++made; }, 0, 3);
  // Three wait in the queue and a fourth is in the maker's hand.
  EXPECT_TRUE(comes_true([&] { return made == 4; }));
  pause(20);
  EXPECT_EQ(made, 4);
  loader.next();
  EXPECT_TRUE(comes_true([&] { return made == 5; }));
}

TEST(Loader, AheadOfZeroStillWorks) {
  Loader<int64_t> loader([](int64_t k) { return k; }, 0, 0);
  for (int64_t k = 0; k < 10; ++k) EXPECT_EQ(loader.next(), k);
}

TEST(Loader, AnErrorComesInItsPlaceAndStays) {
  Loader<int64_t> loader(
      [](int64_t k) {
        if (k == 5) throw std::runtime_error("batch 5 is bad");
        return k;
      },
      2);
  for (int64_t k = 2; k < 5; ++k) EXPECT_EQ(loader.next(), k);
  for (int again = 0; again < 3; ++again) {
    try {
      loader.next();
      FAIL() << "no error";
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "batch 5 is bad");
    }
  }
}

TEST(Loader, ShutsDownAtAnyMoment) {
  const auto alive = std::make_shared<int>(0);  // counts what is not freed
  for (int reads = 0; reads < 6; ++reads) {
    for (int wait = 0; wait < 3; ++wait) {
      Loader<std::shared_ptr<int>> loader(
          [alive](int64_t) {
            pause(1);
            return alive;
          },
          0, 2);
      for (int i = 0; i < reads; ++i) EXPECT_EQ(loader.next(), alive);
      pause(wait * 2);
    }
  }
  EXPECT_EQ(alive.use_count(), 1);
  {
    Loader<int> failed([](int64_t) -> int { throw std::runtime_error("x"); }, 0);
    pause(2);
  }
}

TEST(Loader, MovesWhatCannotBeCopied) {
  Loader<std::unique_ptr<int64_t>> loader([](int64_t k) { return std::make_unique<int64_t>(k); }, 0);
  for (int64_t k = 0; k < 20; ++k) EXPECT_EQ(*loader.next(), k);
}
