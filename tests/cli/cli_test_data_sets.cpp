// Data sets that are not there, as a user meets them.
#include <cstdlib>

#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

TEST_F(CliTest, AnEmptyFolderIsNoDataSet) {  // a download that failed leaves one
  const fs::path folder = dir_ / "data" / "cifar10";
  fs::create_directories(folder);
  const char* set = std::getenv("MTCKI_DATA_DIR");
  const std::string before = set ? set : "";
  setenv("MTCKI_DATA_DIR", (dir_ / "data").c_str(), 1);
  EXPECT_THAT(run({"data", "list"}).out, HasSubstr("not found: " + folder.string()));
  EXPECT_THAT(run({"info"}).out, testing::Not(HasSubstr("cifar10,")));
  set ? setenv("MTCKI_DATA_DIR", before.c_str(), 1) : unsetenv("MTCKI_DATA_DIR");
}

TEST_F(CliTest, AFolderOfOnesOwnIsNotDownloaded) {
  const std::vector<std::string> command = {"run", config(), "data.name=imagefolder",
                                            "data.dir=" + (dir_ / "nowhere").string()};
  refused(command, 3, "Set data.dir=...");
  EXPECT_THAT(run(command).err, testing::Not(HasSubstr("mtcki data get")));
}

}  // namespace
}  // namespace mtcki
