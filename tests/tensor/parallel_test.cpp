#include "tensor/parallel.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mtcki {
namespace {

struct Threads {
  int before = num_threads();
  explicit Threads(int threads) { set_num_threads(threads); }
  ~Threads() { set_num_threads(before); }
};

// The chunks of [0, n), by where they begin.
std::vector<int64_t> ends_of(int64_t n, int64_t grain) {
  std::vector<int64_t> ends(static_cast<size_t>(n), 0);
  parallel_for(n, grain,
               [&](int64_t begin, int64_t end) { ends[static_cast<size_t>(begin)] += end; });
  return ends;
}

TEST(ParallelFor, TheSplitDependsOnTheThreadCountAlone) {
  for (int threads : {1, 2, 3, 5, 2, 4}) {  // more than there may be cores, and fewer again
    const Threads set(threads);
    std::vector<int64_t> expected(100, 0);
    for (int t = 0; t < threads; ++t)
      expected[static_cast<size_t>(100 * t / threads)] = 100 * (t + 1) / threads;
    for (int i = 0; i < 200; ++i) ASSERT_EQ(ends_of(100, 1), expected) << threads << " threads";
    EXPECT_EQ(ends_of(100, 100)[0], 100);
  }
}

TEST(ParallelFor, NestedLoopsAreOneChunk) {
  const Threads set(2);
  std::atomic<int> loops{0}, whole{0};
  const auto inner = [&](int64_t begin, int64_t end) { whole += begin == 0 && end == 50; };
  parallel_for(2, 1, [&](int64_t, int64_t) {
    ++loops;
    parallel_for(50, 1, inner);
  });
  EXPECT_EQ(loops, 2);
  EXPECT_EQ(whole, 2);
#pragma omp parallel num_threads(2)
  parallel_for(50, 1, inner);
  EXPECT_EQ(whole, 4);
}

TEST(ParallelFor, WhatAnyChunkThrowsReachesTheCallerAndLaterLoopsRun) {
  const Threads set(3);
  for (int64_t bad : {0, 33, 66}) {
    std::atomic<int> chunks{0};
    EXPECT_THROW(parallel_for(100, 1,
                              [&](int64_t begin, int64_t) {
                                ++chunks;
                                if (begin == bad) throw std::runtime_error("this chunk");
                              }),
                 std::runtime_error);
    EXPECT_EQ(chunks, 3);
    EXPECT_NO_THROW(ends_of(100, 1));
  }
}

TEST(ParallelFor, ManyCallersAtOnce) {
  const Threads set(3);
  std::array<int64_t, 12> sums{};
  std::vector<std::thread> callers;
  for (int64_t& sum : sums)
    callers.emplace_back([&sum] {
      for (int i = 0; i < 300; ++i) {
        std::array<int64_t, 3> parts{};
        parallel_for(99, 1, [&](int64_t begin, int64_t end) {
          for (int64_t j = begin; j < end; ++j) parts[static_cast<size_t>(begin / 33)] += j;
        });
        sum += parts[0] + parts[1] + parts[2];
      }
    });
  for (std::thread& t : callers) t.join();
  for (int64_t sum : sums) EXPECT_EQ(sum, 300 * 99 * 98 / 2);
}

}  // namespace
}  // namespace mtcki
