// The batch size that an out-of-memory message names, for steps whose memory is known.
#include "mtcki/batch_advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    try {
      throw_with_batch_advice(OutOfMemoryError("full."), {}, "train.batch_size", 1024, probe);
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

// Scratch memory of two threads at one time in some steps, one after the other in others.
TEST_F(BatchAdvice, NamesABatchThatFitsWhenPeaksVary) {
  for (int without = 0; without < 3; ++without) {
    int call = 0;
    const int64_t n = named(
        message(8, [&](int64_t samples) { step(samples, call++ == without ? 0 : 1024 * kKiB); }));
    EXPECT_GE(n, 448 / 2) << without;  // 7 MiB of 16 KiB each
    EXPECT_LE(n, 448) << without;
    EXPECT_NO_THROW(step(n, 1024 * kKiB)) << without;
  }
}

TEST_F(BatchAdvice, SaysWhenNothingFits) {
  EXPECT_THAT(message(1, [](int64_t samples) { step(samples, 0); }),
              EndsWith("Not even an eighth of train.batch_size 1024 fits."));
  EXPECT_THAT(message(4,
                      [held = Tensor()](int64_t samples) mutable {
                        if (!held.defined())
                          held = Tensor::empty({3500 * kKiB});  // what an optimiser keeps
                        step(std::min<int64_t>(samples, 8), 450 * kKiB + samples);
                      }),
              EndsWith("Not even train.batch_size 2 would fit."));
}

}  // namespace
}  // namespace mtcki
