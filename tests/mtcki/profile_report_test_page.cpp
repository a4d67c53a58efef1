// Pages of profiles and sweeps: their marks are those of the profile, and every number is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "mtcki/report/profile_page.h"
#include "mtcki/run/measure.h"
#include "tensor/error.h"

namespace mtcki::profile_report_test_page {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Roof roof() {
  Roof r;
  r.device = "cpu";
  r.machine = "Test CPU";
  r.date = "2026-01-31T12:00:00Z";
  r.threads = 1;
  r.values = {
      {"f32_fma_gflops", 50}, {"copy_gbs", 10}, {"l2_gbs", 40}, {"l2_mb", 0.5}, {"region_us", 1}};
  return r;
}

// A step of a small network on one thread, measured.
const Profile& measured() {
  static const Profile p = [] {
    const Roof r = roof();
    MeasureOptions o;
    o.workload.model = "resnet8";
    o.workload.batch = 4;
    o.steps = 3;
    o.roof = &r;
    return measure(o).profile;
  }();
  return p;
}

size_t count(const std::string& html, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = html.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

// No "nan" or "inf" where a number belongs, nothing from elsewhere, no script.
void expect_sound(const std::string& html) {
  EXPECT_FALSE(std::regex_search(html, std::regex("[\">: ]-?(nan|inf)[\"<, %]")));
  for (const char* word : {"<script", "<link", "http://", "https://", "@import"})
    EXPECT_THAT(html, Not(HasSubstr(word)));
  EXPECT_EQ(count(html, "<svg"), count(html, "</svg>"));
  EXPECT_EQ(count(html, "<table"), count(html, "</table>"));
  EXPECT_EQ(count(html, "<details"), count(html, "</details>"));
}

TEST(ProfilePage, HasAPointForEachOpAndABarForEachCall) {
  const Profile& p = measured();
  const std::string html = profile_page(p);
  expect_sound(html);
  size_t points = 0;
  for (const OpCost& r : p.rows) points += r.us > 0 && r.flops > 0 && r.bytes > 0;
  EXPECT_GT(points, 20u);
  const std::string roofline = roofline_figure(p);
  EXPECT_EQ(count(roofline, "<circle"), points);
  for (const char* limit : {"memory 10 GB/s", "l2 (0.5 MB) 40 GB/s", "f32 50 GFLOP/s"})
    EXPECT_THAT(roofline, HasSubstr(std::string("<title>") + limit + "</title>"));
  EXPECT_THAT(roofline, HasSubstr("FLOP per byte\n"));
  EXPECT_THAT(roofline, HasSubstr("% of the roof (compute)\n"));
  const std::string timeline = timeline_figure(p);
  EXPECT_EQ(count(timeline, "<rect"), p.timeline.size());
  for (const char* lane : {">forward<", ">backward<", ">update<"})
    EXPECT_THAT(timeline, HasSubstr(lane));
  EXPECT_THAT(memory_figure(p), HasSubstr("Memory in MiB: most, "));
  EXPECT_THAT(html, HasSubstr("<td><span style=\"padding-left:1.2em\">0</span></td>"))
      << "layer1.0 below layer1";
  EXPECT_THAT(html, HasSubstr("a step; p10 "));
}

// The timeline is of one step: its ops take what the rows say, and its most memory is a step's.
TEST(ProfilePage, TimelineIsOfOneStep) {
  const Profile& p = measured();
  double calls = 0, last = 0;
  size_t most = 0;
  for (const OpCost& r : p.rows) calls += r.calls;
  for (const TimelineOp& t : p.timeline) {
    EXPECT_GE(t.start_us, last) << "by start";
    last = t.start_us;
    most = std::max(most, t.memory);
  }
  EXPECT_NEAR(static_cast<double>(p.timeline.size()), calls, 1e-6);
  EXPECT_LE(most, p.peak_memory);
  EXPECT_GT(most, p.peak_memory / 2);
  EXPECT_GT(p.clocks.mhz, 100);
  EXPECT_EQ(p.clocks.readings, 4) << "before and after, with and without the profiler";
  EXPECT_LE(p.step_p10_us, p.step_us);
  EXPECT_GE(p.step_p90_us, p.step_us);
  EXPECT_EQ(p.warmup, 3);
}

TEST(ProfilePage, EscapesAndStandsWithoutRoofAndTimes) {
  Profile p;
  p.model = "<net>";
  p.rows.resize(2);
  p.rows[0].op = "a<b";
  const std::string html = profile_page(p);
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("&lt;net&gt;"));
  EXPECT_THAT(html, Not(HasSubstr("a<b")));
  EXPECT_THAT(html, HasSubstr("there are no floors"));
  expect_sound(profile_diff_page(p, measured()));
}

TEST(ProfilePage, DiffShowsBothAndWhatIsWithinTheSpread) {
  Profile a = measured(), b = a;
  a.step_us = 1000, b.step_us = 1500;
  for (OpCost& r : b.rows)
    if (r.op == "conv2d") r.us = 2 * r.us, r.p10_us = r.p90_us = 2 * r.p90_us;
  const std::string html = profile_diff_page(a, b);
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("<b>1.50 times</b>"));
  EXPECT_EQ(count(html, "<h3>before</h3>"), 3u);
  EXPECT_EQ(count(html, "aria-label=\"Roofline\""), 2u);
  const size_t conv = html.find("<td>conv2d</td>");
  EXPECT_THAT(html.substr(conv, 200), HasSubstr("class=\"bad\">+"));
  EXPECT_THAT(html.substr(conv, 300), HasSubstr(">2.00<"));
  EXPECT_THAT(html, HasSubstr("within the spread"));
}

TEST(Sweep, RangesAreReadAndRefused) {
  EXPECT_EQ(parse_sweep("batch=8..64").values, (std::vector<int64_t>{8, 16, 32, 64}));
  EXPECT_EQ(parse_sweep("batch=8..50").values, (std::vector<int64_t>{8, 16, 32, 50}));
  EXPECT_EQ(parse_sweep("width=1,3").values, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(parse_sweep("threads=2..2").values, (std::vector<int64_t>{2}));
  for (const char* text : {"batch", "batch=", "batch=8..", "batch=8..4", "batch=0..8", "bath=1..2",
                           "batch=8,", "batch=1..8", "batch=8...16", "batch=1e3"})
    EXPECT_THROW(parse_sweep(text), UsageError) << text;
}

// 40 us and 3 us per image; relu 5 and 1.
Sweep sweep() {
  Sweep s;
  s.what = "batch";
  for (const int64_t batch : {8, 64, 512}) {
    SweepPoint point{batch, {}, ""};
    Profile& p = point.profile;
    const auto n = static_cast<double>(batch);
    p.model = "net", p.step = "train", p.batch = batch;
    p.step_us = p.step_p10_us = p.step_p90_us = p.profiled_us = 40 + 3 * n;
    OpCost relu;
    relu.op = "relu", relu.pass = "fwd", relu.us = 5 + n;
    p.rows = {relu};
    if (batch == 512) p.rows[0].op = "relu_large";
    s.points.push_back(point);
  }
  s.points.push_back({4096, {}, "out of memory"});
  return s;
}

TEST(Sweep, CostIsAFixedPartAndOneThatGrows) {
  const Sweep s = sweep();
  EXPECT_NEAR(s.step().fixed_us, 40, 1e-6);
  EXPECT_NEAR(s.step().slope_us, 3, 1e-9);
  const auto curves = s.curves();
  ASSERT_EQ(curves.size(), 2u);
  EXPECT_EQ(curves[0].op, "relu_large") << "most at the last point";
  EXPECT_EQ(curves[0].fixed_us + curves[0].slope_us, 0) << "one point is no line";
  EXPECT_NEAR(curves[1].fixed_us, 5, 1e-6);
  EXPECT_TRUE(std::isnan(curves[1].us[2]));
  const std::string text = sweep_text(s, 0);
  EXPECT_THAT(text, HasSubstr("    4096 out of memory\n"));
  EXPECT_THAT(text, HasSubstr("       13.0       69.0          -        5.0      1.000\n"));
  const nlohmann::json j = to_json(s);
  EXPECT_EQ(j["schema"], "mtcki-profile-sweep/1");
  EXPECT_EQ(j["values"], (std::vector<int>{8, 64, 512}));
  EXPECT_EQ(j["points"][3]["failed"], "out of memory");
  EXPECT_EQ(j["points"][0]["profile"]["schema"], "mtcki-profile/1");
  EXPECT_TRUE(j["ops"][1]["us"][2].is_null());
  const std::string html = sweep_page(s);
  expect_sound(html);
  EXPECT_THAT(html, HasSubstr("out of memory"));
  EXPECT_EQ(count(html, "<svg"), 4u);
}

TEST(Sweep, MeasuresEachPoint) {
  MeasureOptions o;
  o.workload.model = "wrn10_1";
  o.workload.batch = 2;
  o.workload.step = "inference";
  o.steps = 1;
  const Sweep widths = measure_sweep(o, parse_sweep("width=1,2"));
  ASSERT_EQ(widths.points.size(), 2u);
  EXPECT_EQ(widths.points[1].profile.model, "wrn10_2");
  EXPECT_GT(widths.points[1].profile.peak_memory, widths.points[0].profile.peak_memory);
  const Sweep batches = measure_sweep(o, parse_sweep("batch=2,4"));
  EXPECT_EQ(batches.points[1].profile.batch, 4);
  o.workload.model = "vgg8_w0.5";
  EXPECT_THROW(measure_sweep(o, parse_sweep("width=2")), UsageError);
}

}  // namespace
}  // namespace mtcki::profile_report_test_page
