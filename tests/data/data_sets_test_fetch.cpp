// Downloading of data sets, with a `curl` of the test's own.
#include <cstdlib>

#include "data/formats/file_bytes.h"
#include "data/sets/dataset.h"
#include "data/sets/verify.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using ::testing::HasSubstr;
using testing::read_all;
using testing::TempDir;
using testing::write_all_text;

TEST(Fetch, NothingToDo) {
  std::string said;
  const auto say = [&said](const std::string& line) { said += line + "\n"; };
  fetch_dataset("synth10", "", say);
  fetch_dataset("fashion-mnist", std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist", say);
  EXPECT_THAT(said, HasSubstr("made in memory"));
  EXPECT_THAT(said, HasSubstr("complete, nothing to download"));
  EXPECT_THROW(fetch_dataset("imagefolder", "", say), UsageError);
}

// A file of the right size that does not load is not taken for whole.
TEST(Fetch, ADamagedFileIsDownloadedAgain) {
  TempDir dir;
  const std::string from = std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist/";
  for (const char* name : {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
                           "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}) {
    std::string content = read_all(from + name);
    if (name == std::string("t10k-labels-idx1-ubyte.gz")) content[2000] ^= 1;
    write_all_text(dir / name, content);
  }
  EXPECT_TRUE(verify_dataset("fashion-mnist", dir.path()).usable);
  const char* path = std::getenv("PATH");
  const std::string saved = path ? path : "";
  ::setenv("PATH", dir.path().c_str(), 1);  // no curl
  std::string text;
  try {
    fetch_dataset("fashion-mnist", dir.path(), [](const std::string&) {});
  } catch (const DataError& e) {
    text = e.what();
  }
  ::setenv("PATH", saved.c_str(), 1);
  EXPECT_THAT(text, HasSubstr("t10k-labels"));
  EXPECT_THAT(text, HasSubstr("curl is not installed"));
}

// Without a network, or without curl, the message says so and what to copy by hand. PATH is emptied
// so that curl cannot be found whatever the machine.
TEST(Fetch, SaysPlainlyWhatIsMissing) {
  TempDir dir;
  const char* path = std::getenv("PATH");
  const std::string saved = path ? path : "";
  ::setenv("PATH", dir.path().c_str(), 1);
  std::string text;
  try {
    fetch_dataset("cifar10", dir / "c10", [](const std::string&) {});
  } catch (const DataError& e) {
    text = e.what();
  }
  ::setenv("PATH", saved.c_str(), 1);
  EXPECT_THAT(text, HasSubstr("curl is not installed"));
  EXPECT_THAT(text, HasSubstr("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"));
  EXPECT_THAT(text, HasSubstr("c32a1d4ab5d03f1284b67883e8d87530"));
}

}  // namespace
}  // namespace mtcki::data
