#include "tensor/parallel.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
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

// In the program that bound_waiting() has started anew.
void check_started(int priority) {
  EXPECT_STREQ(std::getenv("GOMP_SPINCOUNT"), "5000");
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), priority);
  utsname system{};
  int major = 0, minor = 0;
  ASSERT_EQ(uname(&system), 0);
  ASSERT_EQ(std::sscanf(system.release, "%d.%d", &major, &minor), 2);
  if (major < 6 || (major == 6 && minor < 12)) return;  // turns have no length of their own there
  std::array<uint64_t, 6> attributes{};                 // the fourth is the length in ns
  ASSERT_EQ(syscall(SYS_sched_getattr, 0, attributes.data(), sizeof attributes, 0), 0);
  EXPECT_EQ(attributes[3], 100'000U);
}

TEST(BoundWaiting, StartsAnewWithAShortSpinAndShortTurnsAtTheSamePriority) {
  constexpr char kStarted[] = "MTCKI_TEST_STARTED";
  if (const char* priority = std::getenv(kStarted)) return check_started(std::atoi(priority));
  const int lower = std::min(19, getpriority(PRIO_PROCESS, 0) + 1);
  const pid_t child = fork();
  if (child == 0) {
    setenv(kStarted, std::to_string(lower).c_str(), 1);
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_WAIT_POLICY");
    setpriority(PRIO_PROCESS, 0, lower);
    std::array<char, 20> name{"parallel_test"};
    std::array<char, 40> filter{"--gtest_filter=BoundWaiting.*"};
    const std::array<char*, 3> arguments{name.data(), filter.data(), nullptr};
    bound_waiting(arguments.data());
    _exit(2);  // there was no start
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace mtcki
