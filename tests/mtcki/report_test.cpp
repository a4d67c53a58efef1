// report.html: self-contained, escaped, small, and showing what the run folder holds.
#include "mtcki/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>

#include "mtcki/host/console.h"
#include "mtcki/log/run_log.h"
#include "mtcki/report/chart.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    console::set_silent(true);
    dir_ = fs::temp_directory_path() / ("mtcki_report_" + std::to_string(getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string run(const std::string& name, int64_t points) const {
    const std::string folder = (dir_ / name).string();
    RunLog log(folder, false);
    for (int64_t i = 0; i < points; ++i)
      log.metrics("student/<b>x</b>", i, 0, "train",
                  {{"loss", std::exp(-static_cast<double>(i) / 100.0)}});
    for (int64_t i = 1; i <= 3; ++i)
      log.metrics("student/<b>x</b>", i, 0, "eval", {{"top1", 10.0 * static_cast<double>(i)}});
    log.images("synthesis", 1, Tensor::full({4, 3, 8, 8}, 0.5));
    log.warn("careful & <i>slow</i>");
    std::ofstream(folder + "/result.json")
        << R"({"teachers":[{"name":"t<1>","model":"wrn16_1","top1":91.5}],)"
        << R"("students":[{"name":"s","model":"vgg8","top1":80.25,"top1_best":81}],)"
        << R"("synthetic":{"images":512},"seconds":{"synthesis":61}})";
    std::ofstream(folder + "/manifest.json")
        << R"({"attempts":[{"argv":["mtcki","run","<x>"],"status":"finished"}]})";
    std::ofstream(folder + "/config.toml") << "name = \"</pre><script>\"\n";
    return folder;
  }
  fs::path dir_;
};

// Pictures are long and hold no markup: without them the patterns below are quick.
std::string without_pictures(const std::string& html) {
  const std::string begin = "data:image/png;base64,";
  std::string out;
  size_t at = 0;
  for (size_t p = 0; (p = html.find(begin, at)) != std::string::npos;) {
    out += html.substr(at, p + begin.size() - at);
    at = html.find('"', p);
  }
  return out + html.substr(at);
}

// Nothing in the page may load or run anything.
void expect_self_contained(const std::string& page) {
  EXPECT_LE(page.size(), 5'000'000u);
  const std::string html = without_pictures(page);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<link")));
  EXPECT_THAT(html, Not(HasSubstr("@import")));
  EXPECT_THAT(html, Not(HasSubstr("javascript:")));
  const std::regex address("(src|href|url|action|data)\\s*[=(]\\s*[\"']?\\s*([a-z]+:|//)");
  for (auto it = std::sregex_iterator(html.begin(), html.end(), address);
       it != std::sregex_iterator(); ++it)
    EXPECT_EQ((*it)[2].str(), "data:") << it->str();
}

TEST_F(ReportTest, ShowsTheRunAndEscapesEverything) {
  const std::string html = report_html({run("a&b", 50)});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("<!DOCTYPE html>"));
  EXPECT_THAT(html, HasSubstr("<title>a&amp;b"));
  EXPECT_THAT(html, HasSubstr("t&lt;1&gt;"));
  EXPECT_THAT(html, HasSubstr("<b>80.25</b>"));
  EXPECT_THAT(html, HasSubstr("81.00"));
  EXPECT_THAT(html, HasSubstr("512"));
  EXPECT_THAT(html, HasSubstr("1:01"));
  EXPECT_THAT(html, HasSubstr("student/&lt;b&gt;x&lt;/b&gt;"));
  EXPECT_THAT(html, HasSubstr("careful &amp; &lt;i&gt;slow&lt;/i&gt;"));
  EXPECT_THAT(html, HasSubstr("&lt;/pre&gt;&lt;script&gt;"));
  EXPECT_THAT(html, HasSubstr("mtcki run &lt;x&gt;"));
  EXPECT_THAT(html, HasSubstr("data:image/png;base64,iVBORw0KGgo"));
  EXPECT_THAT(html, HasSubstr("alt=\"Grid of images, synthesis 1\""));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(html, HasSubstr("test top1 %"));
  EXPECT_THAT(html, HasSubstr("class=\"line s0\""));
}

// Every opened element is closed, in order: what a browser would otherwise guess.
TEST_F(ReportTest, ElementsAreBalanced) {
  const std::string html =
      without_pictures(report_html({run("a", 300), run("b", 10)}, {5, 3'000'000}));
  EXPECT_THAT(html, HasSubstr("http-equiv=\"refresh\" content=\"5\""));
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)([^>]*?)(/?)>");
  for (auto it = std::sregex_iterator(html.begin(), html.end(), tag); it != std::sregex_iterator();
       ++it) {
    const std::string name = (*it)[2];
    if (name == "meta" || name == "img" || (*it)[4] == "/") continue;
    if ((*it)[1] == "") {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << it->str();
      ASSERT_EQ(open.back(), name);
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST_F(ReportTest, SeveralRunsShareTheCharts) {
  const std::string html = report_html({run("first", 20), run("second", 20)});
  EXPECT_THAT(html, HasSubstr("first: student/"));
  EXPECT_THAT(html, HasSubstr("second: student/"));
  EXPECT_THAT(html, HasSubstr("class=\"line s1\""));
}

TEST_F(ReportTest, ChanceIsADashedLineInTheChartOfItsLoss) {
  const std::string folder = run("chance", 0);
  std::ofstream out(folder + "/metrics.jsonl", std::ios::app);
  for (int i = 0; i < 3; ++i)
    out << "{\"stage\":\"student/a\",\"kind\":\"train\",\"step\":" << i
        << ",\"values\":{\"contrast\":" << 8 - i << ",\"contrast.chance\":8.35}}\n";
  out.close();
  const std::string html = report_html({folder});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("<figcaption>contrast</figcaption>"));
  EXPECT_THAT(html, ::testing::Not(HasSubstr("<figcaption>contrast.chance")));
  EXPECT_THAT(html, HasSubstr("class=\"line s1 level\""));
  EXPECT_THAT(html, HasSubstr("student/a at chance <b>8.35</b>"));
}

TEST_F(ReportTest, StaysSmallWithManyPointsAndPictures) {
  const std::string folder = run("long", 0);
  std::ofstream out(folder + "/metrics.jsonl", std::ios::app);
  for (int i = 0; i < 100000; ++i)
    out << "{\"stage\":\"synthesis\",\"kind\":\"train\",\"step\":" << i
        << ",\"values\":{\"a\":" << i % 17 << ",\"b\":" << i << "}}\n";
  out.close();
  const std::string png(400'000, 'x');
  for (int i = 0; i < 40; ++i)
    std::ofstream(folder + "/samples/synthesis-" + std::to_string(10000000 + i) + ".png") << png;
  expect_self_contained(report_html({folder}));
}

TEST_F(ReportTest, ToleratesWhatIsMissingOrDamaged) {
  const std::string folder = (dir_ / "odd").string();
  fs::create_directories(folder);
  EXPECT_THROW(report_html({folder}), UsageError) << "not a run";
  EXPECT_THROW(report_html({folder + "/none"}), UsageError);
  EXPECT_THROW(report_html({}), UsageError);
  std::ofstream(folder + "/metrics.jsonl") << "{\"stage\":3,\"values\":[1]}\nnonsense\n{\"st";
  std::ofstream(folder + "/result.json")
      << R"({"teachers":7,"students":[3,{"top1":"x"}],"seconds":[]})";
  std::ofstream(folder + "/manifest.json") << R"({"attempts":[3]})";
  const std::string html = report_html({folder});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("1 damaged lines"));
  write_report({folder}, folder + "/report.html");
  EXPECT_EQ(fs::file_size(folder + "/report.html") > 1000, true);
}

TEST(Chart, DownsamplingKeepsExtremesAndEnds) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 10000; ++i)
    points.emplace_back(i, i == 5003 ? 50.0 : i == 7001 ? -50.0 : 0.0);
  const auto few = downsample(points, 100);
  EXPECT_LE(few.size(), 202u);
  EXPECT_EQ(few.front(), points.front());
  EXPECT_EQ(few.back(), points.back());
  EXPECT_NE(std::find(few.begin(), few.end(), points[5003]), few.end());
  EXPECT_NE(std::find(few.begin(), few.end(), points[7001]), few.end());
  for (size_t i = 1; i < few.size(); ++i) EXPECT_LE(few[i - 1].first, few[i].first);
}

TEST(Chart, GapsAndConstants) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(line_chart({{"a", {{0, nan}, {1, nan}}}}, {"t", "step", true, false}), "");
  const std::string gap =
      line_chart({{"a", {{0, 1}, {1, nan}, {2, 1}}}}, {"t", "step", true, false});
  const std::string path = gap.substr(gap.find(" d=\""));
  EXPECT_EQ(std::count(path.begin(), path.end(), 'M'), 2) << "a gap lifts the pen";
  EXPECT_THAT(line_chart({{"a", {{0, 1}, {1, 1000}}}}, {"t", "step", true, false}),
              HasSubstr("(log)"));
  EXPECT_THAT(gap, Not(HasSubstr("nan")));
}

TEST(Chart, NiceTicks) {
  EXPECT_EQ(nice_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(nice_ticks(-1, 1, 4), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(nice_ticks(3, 3, 4).size(), 1u);
}

TEST(Chart, Base64AndEscape) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64(std::string("\xff\xfe\x00", 3)), "//4A");
  EXPECT_EQ(html_escape("<a href=\"x\">&'\x01"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\uFFFD");
}

}  // namespace
}  // namespace mtcki
