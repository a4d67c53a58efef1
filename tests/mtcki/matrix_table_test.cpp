// Tables of a record: numbers by hand, every form, and the tables in the documentation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "data/formats/json_file.h"
#include "mtcki/matrix/record.h"
#include "mtcki/matrix/table.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

json cell(const std::string& method, uint64_t seed, double top1) {
  return {{"cell", method + ".s" + std::to_string(seed)},
          {"method", method},
          {"teachers", ""},
          {"data", ""},
          {"seed", seed},
          {"status", "finished"},
          {"images", 100},
          {"macs", 2e12},
          {"seconds", {{"synthesis", 61.0}}},
          {"metrics", {{"peak_memory_bytes", 3.0 * (1 << 20)}, {"fid_c", 1.25}}},
          {"students",
           {{{"student", "s"},
             {"top1", top1},
             {"top1_best", top1 + 1},
             {"curve", {{1e12, top1 - 2}, {2e12, top1}}}}}}};
}

json by_hand() {
  json r = {{"matrix", "m"}, {"against", {"B"}}, {"cells", json::array()}};
  r["published"] = {{{"method", "A"},
                     {"student", "s"},
                     {"teachers", ""},
                     {"data", ""},
                     {"top1", 90.5},
                     {"mark", "paper"}}};
  for (const auto& [seed, a, b] : {std::tuple{0, 11.0, 10.0}, {1, 22.0, 20.0}, {2, 33.0, 30.0}}) {
    r["cells"].push_back(cell("A", static_cast<uint64_t>(seed), a));
    r["cells"].push_back(cell("B", static_cast<uint64_t>(seed), b));
  }
  r["cells"].push_back({{"cell", "C.s0"},
                        {"method", "C"},
                        {"teachers", ""},
                        {"data", ""},
                        {"seed", 0},
                        {"status", "failed"},
                        {"reason", "no <memory>"}});
  r["cells"].push_back({{"cell", "C.s1"},
                        {"method", "C"},
                        {"teachers", ""},
                        {"data", ""},
                        {"seed", 1},
                        {"status", "open"}});
  return r;
}

TEST(MatrixTable, NumbersByHand) {
  // Differences 1, 2, 3: p = 1 - sqrt(12 / 14) = 0.074.
  EXPECT_EQ(str("\n", matrix_table(by_hand(), "markdown")), R"(
| method | student | seeds |          last |          best |             − B |     published | images | MACs | synthesis |  memory | FID-C |
|--------|---------|------:|--------------:|--------------:|----------------:|--------------:|-------:|-----:|----------:|--------:|------:|
| A      | s       |     3 | 22.00 ± 11.00 | 23.00 ± 11.00 | +2.00 (p 0.074) | 90.50 (paper) |    100 |  2 T |      1:01 | 3.0 MiB |  1.25 |
| B      | s       |     3 | 20.00 ± 10.00 | 21.00 ± 10.00 |                 |               |    100 |  2 T |      1:01 | 3.0 MiB |  1.25 |

failed: C.s0: no <memory>

not finished: 1 of 8 cells
)");
}

TEST(MatrixTable, PairsAreThoseOfEqualSeeds) {
  json r = by_hand();
  r["cells"].erase(0);  // A with seed 0
  EXPECT_THAT(matrix_table(r, "text"), HasSubstr("+2.50 (p 0.13)")) << "differences 2 and 3";
  for (json& c : r["cells"])
    if (c["method"] == "B" && c["seed"] == 2) c["teachers"] = "other";
  EXPECT_THAT(matrix_table(r, "text"), HasSubstr("+2.00 ")) << "one pair, no test";
}

TEST(MatrixTable, RecordsOfSeveralMachinesAreJoined) {
  json first = by_hand(), second = by_hand();
  first["machine"] = {{"cpu", "X"}, {"threads", 2}};
  second["machine"] = {{"cpu", "Y"}, {"threads", 4}};
  first["git"] = second["git"] = "v1";
  first["date"] = "2026-01-02";
  second["date"] = "2026-01-01";
  second["cells"] = {cell("A", 3, 44.0), cell("C", 1, 5.0)};
  const json joined = joined_records({first, second});
  EXPECT_EQ(joined["machine"]["cpu"], "X, Y");
  EXPECT_EQ(joined["git"], "v1");
  EXPECT_EQ(joined["date"], "2026-01-02");
  ASSERT_EQ(joined["cells"].size(), first["cells"].size() + 1) << "C.s1 was open in the first";
  EXPECT_EQ(joined["cells"].back(), second["cells"][0]);
  EXPECT_THAT(matrix_table(joined, "text"), HasSubstr("| C      | s       |     1 |"));
  EXPECT_EQ(joined_records({first, first})["cells"], first["cells"]);
  EXPECT_EQ(joined_records({second, first})["cells"].size(), joined["cells"].size());
  second["cells"][1] = cell("A", 0, 99.0);
  EXPECT_THROW(joined_records({first, second}), UsageError) << "two results of one cell";
  second["cells"].erase(1);
  second["against"] = json::array();
  EXPECT_THROW(joined_records({first, second}), UsageError) << "another matrix";
  EXPECT_THROW(joined_records({first, json::object()}), DataError);
}

TEST(MatrixTable, EveryForm) {
  const std::string text = matrix_table(by_hand(), "text");
  std::istringstream lines(text);
  std::string head, first, second;
  std::getline(lines, head);
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(first.find("22.00"), second.find("20.00")) << text;
  const std::string csv = matrix_table(by_hand(), "csv");
  EXPECT_THAT(csv, HasSubstr("method,teachers,data,seed,status,student,top1,top1_best,images,"));
  EXPECT_THAT(csv, HasSubstr("\nA,,,1,finished,s,22,23,100,,2000000000000,61,,3145728,1.25,"));
  EXPECT_THAT(csv, HasSubstr("\nC,,,0,failed,,,,"));
  const std::string html = matrix_table(by_hand(), "html");
  EXPECT_THAT(html, HasSubstr("no &lt;memory&gt;"));
  EXPECT_THAT(html, HasSubstr("Accuracy over counted cost"));
  EXPECT_EQ(html.find("What the students learned from"), std::string::npos) << "no runs here";
  EXPECT_EQ(json::parse(matrix_table(by_hand(), "json")), by_hand());
  EXPECT_THROW(matrix_table(by_hand(), "latex"), UsageError);
  EXPECT_THROW(matrix_table(json::object(), "text"), DataError);
  EXPECT_THROW(matrix_table({{"cells", 3}, {"against", 1}}, "text"), DataError);
}

// A table between "<!-- mtcki matrix FILE -->" and "<!-- end -->" in any page is that of the record.
TEST(MatrixTable, TablesInTheDocumentationAreGenerated) {
  const fs::path root = MTCKI_SOURCE_DIR;
  const std::string begin = "<!-- mtcki matrix ", end = "<!-- end -->";
  int tables = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() != ".md") continue;
    std::ifstream in(entry.path());
    std::ostringstream whole;
    whole << in.rdbuf();
    const std::string text = whole.str();
    for (size_t at = text.find("\n" + begin); at != std::string::npos;
         at = text.find("\n" + begin, at + 1)) {
      const size_t name = at + 1 + begin.size(), close = text.find(" -->\n", name);
      const size_t body = close + 5, stop = text.find(end, body);
      ASSERT_NE(stop, std::string::npos) << entry.path();
      const std::string file = text.substr(name, close - name);
      const json record = data::read_json((root / file).string());
      ASSERT_TRUE(record.is_object()) << file;
      EXPECT_EQ(text.substr(body, stop - body), str("\n", matrix_table(record, "markdown"), "\n"))
          << entry.path() << ": mtcki matrix " << file << " --table markdown";
      ++tables;
    }
  }
  EXPECT_GE(tables, 1);
}

}  // namespace
}  // namespace mtcki
