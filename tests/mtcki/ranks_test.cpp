// How a process finds out which rank of how many it is, and which GPU is its own.
#include <gmock/gmock.h>

#include <map>

#include "mtcki/training/compute.h"
#include "tensor/comm_mpi.h"

namespace mtcki {
namespace {

using Variables = std::map<std::string, std::string>;

struct Answer {
  int ranks = 0;
  std::string warning;
};
Answer launched(const Variables& variables) {
  Answer a;
  a.ranks = launched_ranks(
      [&](const char* name) -> const char* {
        const auto it = variables.find(name);
        return it == variables.end() ? nullptr : it->second.c_str();
      },
      [&](const std::string& text) { a.warning += text; });
  return a;
}

TEST(Ranks, LaunchersSayHowMany) {
  EXPECT_EQ(launched({}).ranks, 1);
  EXPECT_EQ(launched({{"OMPI_COMM_WORLD_SIZE", "4"}}).ranks, 4);
  EXPECT_EQ(launched({{"PMI_SIZE", "3"}, {"SLURM_STEP_NUM_TASKS", "3"}}).ranks, 3);
  EXPECT_EQ(launched({{"MTCKI_RANKS", "2"}}).ranks, 2);
  const Answer pmix = launched({{"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "8"}});
  EXPECT_EQ(pmix.ranks, 8) << "srun --mpi=pmix";
  EXPECT_EQ(pmix.warning, "");
}

// Each of them would train the same job and write the same folder.
TEST(Ranks, SeveralTasksThatAreNoRanksAreWarnedOf) {
  const Answer a = launched({{"SLURM_STEP_NUM_TASKS", "8"}});
  EXPECT_EQ(a.ranks, 1);
  EXPECT_THAT(a.warning, ::testing::HasSubstr("srun started 8 tasks"));
  EXPECT_THAT(a.warning, ::testing::HasSubstr("--mpi=pmix"));
  EXPECT_EQ(launched({{"SLURM_STEP_NUM_TASKS", "8"}, {"MTCKI_RANKS", "1"}}).warning, "");
  EXPECT_EQ(launched({{"SLURM_STEP_NUM_TASKS", "1"}}).warning, "");
}

TEST(Ranks, ARankTakesAGpuThatItSees) {
  EXPECT_EQ(gpu_of_rank(3, 8), 3);
  EXPECT_EQ(gpu_of_rank(3, 1), 0) << "the scheduler shows each rank its own";
  EXPECT_EQ(gpu_of_rank(5, 4), 1);
  EXPECT_EQ(gpu_of_rank(5, 0), 0);
}

}  // namespace
}  // namespace mtcki
