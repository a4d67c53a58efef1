// StepRunner on the CPU: values at once, and errors that say what to do. On a GPU: stages_cuda_test.
#include "mtcki/training/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/error.h"

namespace mtcki {
namespace {

TEST(StepRunner, ReportsAStepAtOnce) {
  StepRunner runner({}, "train.batch_size", 32);
  EXPECT_FALSE(runner.is_deferred());
  for (int64_t step = 0; step < 3; ++step) {
    const Values values = runner.run(step, "same", [&] {
      runner.values().put("loss", Tensor::full({}, static_cast<double>(step)));
    });
    ASSERT_EQ(values.size(), 1u);
    EXPECT_EQ(values[0].second, static_cast<double>(step));
  }
  EXPECT_EQ(runner.read()[0].second, 2.0);  // those of the last step
}

TEST(StepRunner, StopsBeforeTheUpdateWhenALossIsNotFinite) {
  StepRunner runner({}, "train.batch_size", 32);
  bool updated = false;
  EXPECT_THROW(runner.run(0, "",
                          [&] {
                            runner.values().put("loss", Tensor::full({}, std::nan("")), "hint");
                            updated = true;
                          }),
               NumericError);
  EXPECT_FALSE(updated);
}

TEST(StepRunner, OutOfMemoryNamesTheKeyToLower) {
  StepRunner runner({}, "distill.batch_size", 128);
  const auto full = [] { throw OutOfMemoryError("full."); };
  for (const bool before : {false, true}) {
    try {
      before ? runner.before_step(full) : void(runner.run(0, "", full));
      ADD_FAILURE() << "no error";
    } catch (const OutOfMemoryError& e) {
      EXPECT_STREQ(e.what(), "full. Lower distill.batch_size (now 128).");
    }
  }
}

}  // namespace
}  // namespace mtcki
