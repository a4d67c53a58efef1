// One rank. Its result is that of all ranks; a fatal failure or an exception ends the job, because
// the other ranks would wait for this one.
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <memory>

#include "tensor/comm.h"
#include "tensor/error.h"

namespace {

class Failures : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& r) override {
    if (!r.failed()) return;
    const int rank = mtcki::Communicator::world().rank();
    if (rank > 0)
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank, r.file_name() ? r.file_name() : "?",
                   r.line_number(), r.message());
    if (r.fatally_failed()) mtcki::abort_job(1);
  }
};

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  try {
    const mtcki::Communicator& world = mtcki::Communicator::world();
    if (world.size() < 2) {
      std::fprintf(stderr, "needs mpirun with 2 or more ranks\n");
      return 2;
    }
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (!world.is_root()) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
    const int failed = RUN_ALL_TESTS();
    return world.sum(failed) == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    mtcki::abort_job(1);
    return 1;
  }
}
