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

#include "mtcki/config/loss_rows.h"
#include "mtcki/evaluation/confusion.h"
#include "mtcki/host/console.h"
#include "mtcki/log/run_log.h"
#include "mtcki/profile/profile.h"
#include "mtcki/report/chart.h"
#include "mtcki/report/labels.h"
#include "mtcki/report/run_files.h"
#include "mtcki/synthesis/image_pool.h"
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
  EXPECT_THAT(html, HasSubstr("&lt;b&gt;x&lt;/b&gt; <b>"));
  EXPECT_THAT(html, HasSubstr("careful &amp; &lt;i&gt;slow&lt;/i&gt;"));
  EXPECT_THAT(html, HasSubstr("&lt;/pre&gt;&lt;script&gt;"));
  EXPECT_THAT(html, HasSubstr("mtcki run &lt;x&gt;"));
  EXPECT_THAT(html, HasSubstr("data:image/png;base64,iVBORw0KGgo"));
  EXPECT_THAT(html, HasSubstr("alt=\"Images of batch 1\""));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(html, HasSubstr("Test accuracy, top-1, %"));
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
  EXPECT_THAT(html, HasSubstr("first: &lt;b&gt;x"));
  EXPECT_THAT(html, HasSubstr("second: &lt;b&gt;x"));
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
  EXPECT_THAT(html, HasSubstr("class=\"line level\""));
  EXPECT_THAT(html, HasSubstr("a at chance <b>8.35</b>"));
}

void add_line(const std::string& folder, const std::string& stage, const std::string& kind,
              int64_t step, const std::string& values) {
  std::ofstream(folder + "/metrics.jsonl", std::ios::app)
      << "{\"stage\":\"" << stage << "\",\"kind\":\"" << kind << "\",\"step\":" << step
      << ",\"values\":{" << values << "}}\n";
}

TEST_F(ReportTest, OpensWithTheResult) {
  const std::string html = report_html({run("a", 5)});
  EXPECT_THAT(html, HasSubstr("s learned from 512 synthetic images alone and puts 80.25 % of the"));
  EXPECT_THAT(html, HasSubstr("<b>80.25 %</b>best student"));
  EXPECT_THAT(html, HasSubstr("<b>87.7 %</b>of its best teacher's 91.50 % kept")) << "80.25 / 91.5";
  EXPECT_THAT(html, HasSubstr("<b class=\"good\">finished</b>"));
  EXPECT_LT(html.find("<b>80.25 %</b>"), html.find("<h2>"));
}

TEST_F(ReportTest, ARunUnderWayShowsItsLastTests) {
  const std::string folder = run("live", 0);
  fs::remove(folder + "/result.json");
  std::ofstream(folder + "/config.toml")
      << "[[teachers]]\nname = \"\"\nmodel = \"vgg8\"\n[[students]]\nname = \"pupil\"\n"
         "model = \"resnet8\"\n[synthesis]\ng_steps = 24\n";
  std::ofstream(folder + "/manifest.json") << R"({"attempts":[{"status":"running"}]})";
  add_line(folder, "teacher/vgg8", "eval", 8, R"("top1":90)");
  add_line(folder, "student/pupil", "eval", 4, R"("top1":40)");
  add_line(folder, "student/pupil", "eval", 8, R"("top1":45)");
  const std::string html = report_html({folder});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("<b>45.00 %</b>best student, pupil"));
  EXPECT_THAT(html, HasSubstr("<b>50.0 %</b>of its best"));
  EXPECT_TRUE(is_running(folder));
  EXPECT_EQ(config_value(config_values("a = 1\n[[x]]\nb = \"2\"\n[[x]]\nb = 3\n"), "x.1.b"), "3");
}

// A method of fresh samples keeps no set: the classes are those of a network's confusion matrix.
TEST_F(ReportTest, WithoutASetChanceIsKnownAndPicturesNameTheirStudent) {
  const std::string folder = run("fresh", 0);
  ConfusionMatrix matrix;
  matrix.counts.assign(16, 1);
  matrix.class_names = {"a", "b", "c", "d"};
  fs::create_directories(folder + "/teachers/t<1>");
  write_confusion(folder + "/teachers/t<1>", matrix);
  for (int i = 1; i <= 3; ++i)
    add_line(folder, "student/s", "train", i, str(R"("synthesis.class_prior":)", 3 - i));
  RunLog(folder, false).images("student/s", 3, Tensor::full({4, 3, 8, 8}, 0.5));
  const std::string html = report_html({folder});
  EXPECT_THAT(html, HasSubstr("<td class=\"n\">25.00</td>"));
  EXPECT_THAT(html, HasSubstr("chance, ln K <b>1.386"));
  EXPECT_THAT(html, HasSubstr("Whole batches, student-s: 1 of 1 pictures"));
}

TEST_F(ReportTest, LossesOfTheTeacherThatAStepAskedAreALineEach) {
  const std::string folder = run("asked", 0);
  for (int i = 1; i <= 3; ++i) {
    add_line(folder, "synthesis", "train", 2 * i,
             R"("history_contrast@t1":2,"history_contrast@t1.chance":9)");
    add_line(folder, "synthesis", "train", 2 * i + 1,
             R"("history_contrast@t2":5,"history_contrast@t2.chance":9)");
  }
  const std::string html = report_html({folder});
  EXPECT_THAT(html, HasSubstr("</i>t1 asked <b>2</b>"));
  EXPECT_THAT(html, HasSubstr("</i>t2 asked <b>5</b>"));
  EXPECT_THAT(html, HasSubstr("</i>at chance <b>9</b>")) << "one line for both";
  EXPECT_THAT(html, Not(HasSubstr("history_contrast")));
}

TEST_F(ReportTest, TheBestTeacherIsALineWhereItDoesNotSqueezeTheOthers) {
  const std::string folder = run("target", 0);
  EXPECT_THAT(report_html({folder}), Not(HasSubstr("</i>best teacher")))
      << "10 to 30 %, and 91.5 %";
  add_line(folder, "student/s", "eval", 4, R"("top1":80)");
  EXPECT_THAT(report_html({folder}), HasSubstr("</i>best teacher <b>91.5</b>"));
}

TEST_F(ReportTest, GalleryByClassAndFilm) {
  const std::string folder = run("gallery", 0);
  PoolInfo info;
  info.channels = 1;
  info.image_size = 8;
  info.num_classes = 3;
  info.class_names = {"cat", "<dog>", "none"};
  ImagePool pool(folder + "/synth", info);
  for (int64_t batch = 0; batch < 3; ++batch) {
    Tensor images = Tensor::zeros({4, 1, 8, 8}, DType::u8);
    images.slice(2, 4).fill_(200);
    pool.add(batch, images, Tensor::from(std::vector<int64_t>{0, 0, 1, 1}, {4}));
  }
  std::ofstream(folder + "/config.toml") << "[synthesis]\ng_steps = 5\n";
  RunLog log(folder, false);
  for (const int64_t step : {1, 5, 11}) log.images("film", step, Tensor::zeros({8, 1, 4, 4}), 1);
  const std::string html = report_html({folder});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("alt=\"Synthetic images made as cat\""));
  EXPECT_THAT(html, HasSubstr("<th>&lt;dog&gt; <small>6</small></th>"));
  EXPECT_THAT(html, Not(HasSubstr("made as none"))) << "a class without images";
  EXPECT_THAT(html, HasSubstr("Batch 1, from noise"));
  EXPECT_THAT(html, HasSubstr("alt=\"Images of batch 1 after step 5\""));
  EXPECT_THAT(html, HasSubstr("alt=\"Images of batch 3 after step 1\""));
  std::ofstream(folder + "/synth/shard-00000.safetensors") << "damaged";
  EXPECT_THAT(report_html({folder}), HasSubstr("Synthetic images made as cat"));
}

TEST_F(ReportTest, CostShowsStagesInOrderAndProfiledOps) {
  const std::string folder = run("cost", 0);
  std::ofstream(folder + "/result.json")
      << R"({"seconds":{"metrics":1,"student/s":100,"students":100,"synthesis":61,"teachers":40}})";
  Profile p;
  p.step = "stage synthesis";
  OpCost conv;
  conv.op = "conv2d", conv.bound = "compute", conv.dtype = "f32";
  conv.us = 900, conv.flops = 9e7, conv.bytes = 1e5, conv.floor_us = 450;
  OpCost copy;
  copy.op = "copy", copy.bound = "memory";
  copy.us = 100, copy.flops = 1e3, copy.bytes = 1e6, copy.floor_us = 50;
  p.rows = {conv, copy};
  p.threads = 1;
  p.roof.emplace();
  p.roof->values = {{"f32_fma_gflops", 200}, {"copy_gbs", 20}};
  fs::create_directories(folder + "/profile");
  std::ofstream(folder + "/profile/synthesis.json") << to_json(p).dump();
  std::ofstream(folder + "/profile/odd.json") << "{";
  const std::string html = report_html({folder});
  expect_self_contained(html);
  EXPECT_THAT(html, HasSubstr("<b>3:22</b>")) << "their sum, no part twice";
  EXPECT_LT(html.find("teachers: 40s, 20 %"), html.find("synthesis: 1:01, 30 %"));
  EXPECT_THAT(html,
              HasSubstr("<td>conv2d</td><td class=\"bar\"><i class=\"s0\" style=\"width:90.0%\">"));
  EXPECT_THAT(html, HasSubstr("90.0 % of the ops&#39; time\n100 GFLOP/s, 0.1111 GB/s, 900 FLOP"));
  EXPECT_THAT(html, HasSubstr("<title>f32 200 GFLOP/s</title>"));
  EXPECT_THAT(html, HasSubstr("<title>memory 20 GB/s</title>"));
}

TEST_F(ReportTest, RunsThatDifferInTheSeedAloneAreAveraged) {
  std::vector<std::string> folders;
  for (const int seed : {0, 1, 2}) {
    folders.push_back(run("seed" + std::to_string(seed), 2));
    std::ofstream(folders.back() + "/config.toml")
        << "name = \"seed" << seed << "\"\nseed = " << seed
        << "\n[distill]\nlr = " << (seed == 2 ? "0.5" : "0.1") << "\n";
    std::ofstream(folders.back() + "/result.json")
        << R"({"students":[{"name":"s","model":"m","top1":)" << 80 + 2 * seed << "}]}";
  }
  const std::string html = report_html(folders);
  EXPECT_THAT(html, HasSubstr("<td>seed0, seed1</td><td>s</td><td class=\"n\">2</td>"
                              "<td class=\"n\">81.00 ± 1.41</td>"));
  EXPECT_THAT(html, HasSubstr("<td>distill.lr</td><td class=\"n\">0.1</td><td class=\"n\">0.1</td>"
                              "<td class=\"n\">0.5</td>"));
  const std::string differing = html.substr(0, html.find("Over seeds"));
  EXPECT_THAT(differing, Not(HasSubstr("<td>name</td>")));
}

// A number that the log or the result may hold has a title and a help text.
TEST(Labels, KnowWhatIsLogged) {
  std::vector<std::string> keys = {"top1",
                                   "top5",
                                   "acc",
                                   "loss",
                                   "lr",
                                   "agree",
                                   "fused_kd",
                                   "teacher_student_contrast",
                                   "img_s",
                                   "ms_per_step",
                                   "memory_bytes",
                                   "grad_norm",
                                   "fid_c",
                                   "is_c",
                                   "is_c_real",
                                   "label_accuracy",
                                   "diversity",
                                   "diversity_real",
                                   "class_coverage",
                                   "distinct_neighbours",
                                   "generator_steps",
                                   "teacher_forward_macs",
                                   "kd_steps",
                                   "kd_forward_macs",
                                   "peak_memory_bytes",
                                   "peak_tensor_bytes"};
  for (const LossTermRow& row : inversion_terms()) keys.emplace_back(row.name);
  for (const StudentTermRow& row : student_terms()) keys.emplace_back(row.name);
  for (const std::string& key : keys) EXPECT_NE(label_of(key).help, "") << key;
  EXPECT_EQ(label_of("what_is_this").title, "what is this");
  EXPECT_EQ(label_of("synthesis.bn_statistics").title, "Batch-norm statistics (synthesis)");
  EXPECT_EQ(label_of("synthesis.bn_statistics").help, label_of("bn_statistics").help);
  EXPECT_EQ(label_text(label_of("top1"), 86.4321), "86.43 %");
  EXPECT_EQ(label_text(label_of("kd_forward_macs"), 7.4066e11), "740.7 G MACs");
  EXPECT_EQ(label_text(label_of("kd_steps"), 2560), "2560");
  EXPECT_EQ(label_text(label_of("memory_bytes"), 3.0 * (1 << 20)), "3.0 MiB");
  EXPECT_EQ(label_text(label_of("ms_per_step"), 12.3456), "12.35 ms");
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
  EXPECT_EQ(line_chart({{"a", {{0, nan}, {1, nan}}}}, {"t"}), "");
  const std::string gap = line_chart({{"a", {{0, 1}, {1, nan}, {2, 1}}}}, {"t"});
  const std::string path = gap.substr(gap.find(" d=\""));
  EXPECT_EQ(std::count(path.begin(), path.end(), 'M'), 2) << "a gap lifts the pen";
  EXPECT_THAT(line_chart({{"a", {{0, 1}, {1, 1000}}}}, {"t"}), HasSubstr("(log)"));
  EXPECT_THAT(gap, Not(HasSubstr("nan")));
}

TEST(Chart, TheNinthSeriesIsToldFromTheFirst) {
  std::vector<Series> nine;
  for (int i = 0; i < 9; ++i) nine.push_back({str("method ", i), {{0.0, 1.0 * i}, {1.0, i + 1.0}}});
  const std::string chart = line_chart(nine, {"t"});
  EXPECT_THAT(chart, HasSubstr("class=\"line s0\""));
  EXPECT_THAT(chart, HasSubstr("class=\"line s0 more\""));
  EXPECT_THAT(chart, HasSubstr("<i class=\"s0 more\"></i>method 8"));
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
