// The batch size that an out-of-memory message names, for steps whose memory is known.
#include "mtcki/training/batch_advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tensor/allocator.h"
#include "tensor/tensor.h"

namespace mtcki {
namespace {

using ::testing::EndsWith;

constexpr int64_t kKiB = 256;  // elements of f32
constexpr int64_t kPerSample = 16 * kKiB;

class BatchAdvice : public ::testing::Test {
 protected:
  void TearDown() override { set_memory_limit(0); }

  // A step on n samples whose kernels have `scratch` elements beside them.
  static void step(int64_t n, int64_t scratch) {
    const Tensor samples = Tensor::empty({n * kPerSample});
    const Tensor beside = Tensor::empty({scratch + 1});
  }

  // The message for a batch of 1024, with so much memory beyond what is held.
  static std::string message(size_t mebibytes, const std::function<void(int64_t)>& probe) {
    release_cached_memory();
    set_memory_limit(memory_stats().in_use + (mebibytes << 20));
    return message(probe);
  }
  static std::string message(const std::function<void(int64_t)>& probe, int64_t batch = 1024) {
    try {
      throw_with_batch_advice(OutOfMemoryError("full."), {}, "train.batch_size", batch, probe);
    } catch (const OutOfMemoryError& e) {
      return e.what();
    }
  }

  static int64_t named(const std::string& message) {
    const std::string key = "full. train.batch_size ";
    EXPECT_THAT(message, ::testing::StartsWith(key));
    EXPECT_THAT(message, EndsWith(" would fit."));
    return message.size() > key.size() ? std::stoll(message.substr(key.size())) : 0;
  }
};

TEST_F(BatchAdvice, UsesMostOfTheMemory) {  // 15 MiB of 16 KiB each, 1 MiB beside: 960
  const int64_t n = named(message(16, [](int64_t samples) { step(samples, 1024 * kKiB); }));
  EXPECT_GE(n, 960 * 3 / 4);
  EXPECT_LE(n, 960 * 9 / 10);
}

// Scratch memory of two threads at one time in some steps, one after the other in others. The
// steps: what stays, twice as many, as many, the trial.
TEST_F(BatchAdvice, NamesABatchThatFitsWhenPeaksVary) {
  for (int without = 0; without < 4; ++without) {
    int call = 0;
    const int64_t n = named(
        message(8, [&](int64_t samples) { step(samples, call++ == without ? 0 : 1024 * kKiB); }));
    EXPECT_GE(n, 448 / 2) << without;  // 7 MiB of 16 KiB each
    EXPECT_LE(n, 448) << without;
    EXPECT_NO_THROW(step(n, 1024 * kKiB)) << without;
  }
}

// An eighth of the batch needs 2 MiB, twice that 4.
TEST_F(BatchAdvice, BeginsWithLessWhereTheProbesDoNotFit) {
  const int64_t n = named(message(1, [](int64_t samples) { step(samples, 0); }));
  EXPECT_GE(n, 32);
  EXPECT_LE(n, 64);
}

// What `ulimit -v` leaves: 256 MiB, of 256 KiB each.
TEST_F(BatchAdvice, KnowsTheLimitOfTheAddressSpace) {
  release_cached_memory();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  size_t pages = 0;
  ASSERT_TRUE(std::ifstream("/proc/self/statm") >> pages);
  rlimit limited = before;
  limited.rlim_cur = pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) + (size_t{256} << 20);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limited), 0);
  int64_t most = 0;
  const std::string text = message([&](int64_t samples) {
    most = std::max(most, samples);
    step(16 * samples, 0);
  });
  EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_GE(named(text), 1024 / 2);
  EXPECT_LE(most, 1000);          // it did not try its way down from 1023
  EXPECT_EQ(memory_limit(), 0u);  // as it was
}

TEST_F(BatchAdvice, SaysWhenNothingFits) {
  EXPECT_THAT(message(1, [](int64_t samples) { step(samples, 1024 * kKiB); }),
              EndsWith("Not even train.batch_size 4 would fit."));
  EXPECT_EQ(message([](int64_t samples) { step(samples, 0); }, 4), "full.");
}

}  // namespace
}  // namespace mtcki
