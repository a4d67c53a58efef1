// Words that users of other tools try: each is refused with what to write instead.
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

TEST_F(CliTest, WordsOfOtherToolsSayWhatToWrite) {
  refused({"bench"}, 2, "write mtcki profile; against PyTorch: scripts/bench_compare");
  refused({"convert"}, 2, "write mtcki export weights");
  refused({"fid"}, 2, "a run with metrics.classifier_model measures FID-C");
  refused({"synth"}, 2, "write mtcki invert");
}

}  // namespace
}  // namespace mtcki
