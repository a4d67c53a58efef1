#include <omp.h>

#include <cstdlib>

#include "mtcki/training/compute.h"
#include "tensor/comm.h"
#include "tensor/error.h"
#include "tests/mpi/mpi_testing.h"

namespace mtcki {
namespace {

using namespace testing;

TEST(Communicator, RanksAreNumbered) {
  EXPECT_EQ(Tensor::from(std::vector<int64_t>{world().rank()}, {1}).to_vector<int64_t>()[0],
            world().rank());
  const auto ranks = world()
                         .all_gather(Tensor::from(std::vector<int64_t>{world().rank()}, {1}))
                         .to_vector<int64_t>();
  ASSERT_EQ(static_cast<int>(ranks.size()), world().size());
  for (int r = 0; r < world().size(); ++r) EXPECT_EQ(ranks[static_cast<size_t>(r)], r);
  EXPECT_LT(world().local_rank(), world().size());
}

// mpirun does not bind the ranks of these tests: each may use every core of the machine.
TEST(Communicator, RanksOfAMachineShareItsCores) {
  EXPECT_EQ(world().cores(), std::max(1, omp_get_num_procs() / world().size()));
  EXPECT_EQ(Communicator::self().cores(), 0);
  const char* set = std::getenv("OMP_NUM_THREADS");
  const std::string before = set ? set : "1";
  setenv("OMP_NUM_THREADS", before.c_str(), 1);
  EXPECT_EQ(threads_of_rank(0), 0);
  EXPECT_EQ(threads_of_rank(5), 5);
  unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(threads_of_rank(0), world().cores());
  EXPECT_EQ(threads_of_rank(5), 5);
  setenv("OMP_NUM_THREADS", before.c_str(), 1);
}

TEST(Communicator, SumsEveryType) {
  const int n = world().size();
  for (const DType dtype : {DType::f32, DType::f64, DType::i64}) {
    const Tensor t = Tensor::full({3, 5}, world().rank() + 1, dtype);
    const uint32_t version = t.version();
    world().all_reduce_sum_(t);
    EXPECT_TRUE(close(t, Tensor::full({3, 5}, n * (n + 1) / 2, dtype), 0)) << name_of(dtype);
    EXPECT_NE(t.version(), version);
  }
  EXPECT_THROW(world().all_reduce_sum_(Tensor::zeros({2}, DType::bf16)), DTypeError);
  world().all_reduce_sum_(Tensor::zeros({0}));
}

// Sums of numbers of very different sizes: the order of additions shows in the bits.
TEST(Communicator, SumsHaveTheSameBitsEveryTimeAndEverywhere) {
  const Tensor mine =
      exp(mul(sample({100003}, 17 + static_cast<uint64_t>(world().rank()), DType::f32), 8.0));
  const Tensor first = summed(mine);
  EXPECT_TRUE(same_on_all_ranks(first));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(identical(summed(mine), first));
}

TEST(Communicator, GathersRowsInEveryLayout) {
  const int64_t c = kChannelBlock;
  const Tensor all = sample({2 * world().size(), c, 3, 4}, 5, DType::f32);
  for (const Layout layout : {Layout::plain, Layout::channels_last, Layout::blocked}) {
    const Tensor got = world().all_gather(own_rows(all).to(layout));
    EXPECT_EQ(got.layout(), layout);
    EXPECT_TRUE(identical(got.plain(), all));
  }
  EXPECT_THROW(world().all_gather(Tensor::scalar(1)), ShapeError);
}

TEST(Communicator, Broadcasts) {
  const int last = world().size() - 1;
  const Tensor t = Tensor::full({4}, world().rank(), DType::f32);
  world().broadcast_(t, last);
  EXPECT_TRUE(close(t, Tensor::full({4}, last, DType::f32), 0));
  EXPECT_EQ(world().broadcast(world().rank() + 7, last), last + 7);
  EXPECT_EQ(world().sum(1), world().size());
  EXPECT_EQ(world().max(-world().rank()), 0);
  EXPECT_EQ(world().max(world().rank()), last);
  world().barrier();
}

TEST(Communicator, RowsOfARankAndBatchesThatDoNotDivide) {
  const RowRange r = rows_of_rank(12, world(), "train.batch_size");
  EXPECT_EQ(r.size(), 12 / world().size());
  EXPECT_EQ(r.begin, world().rank() * r.size());
  try {
    rows_of_rank(world().size() + 1, world(), "train.batch_size");
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("train.batch_size is"), std::string::npos) << e.what();
  }
}

TEST(Communicator, OneProcessIsItsOwnJob) {
  const Communicator& self = Communicator::self();
  const Tensor t = sample({2, 3}, 1, DType::f32);
  EXPECT_TRUE(self.all_gather(t).shares_memory(t));
  EXPECT_EQ(&communicator(), &world());
  {
    const CommunicatorScope alone(self);
    EXPECT_EQ(&communicator(), &self);
  }
  EXPECT_EQ(&communicator(), &world());
}

}  // namespace
}  // namespace mtcki
