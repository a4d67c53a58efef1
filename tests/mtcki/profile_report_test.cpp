// Tables, files and traces of a profile, from events as a fake clock would have left them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "mtcki/profile/table.h"
#include "mtcki/run/workload.h"
#include "tensor/error.h"
#include "tensor/profiler_activity.h"

namespace mtcki {
namespace {

using profiler::Event;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Event event(const char* op, const char* module, int64_t step, double us, double flops, double bytes,
            bool backward = false) {
  Event e;
  e.op = op;
  e.module = module;
  e.stage = backward ? "backward" : "forward";
  e.shape = "[8, 16, 4, 4]";
  e.dtype = "f32";
  e.layout = "plain";
  e.step = step;
  e.self_us = e.duration_us = e.host_us = us;
  e.flops = flops;
  e.bytes = bytes;
  e.backward = backward;
  return e;
}

// 100 GFLOP/s with one thread, 150 with all four; 10 and 20 GB/s; a loop takes 1 us.
Roof roof() {
  Roof r;
  r.device = "cpu";
  r.machine = "Test CPU";
  r.date = "2026-01-31T12:00:00Z";
  r.version = std::string("0");
  r.libraries = "none";
  r.threads = 4;
  r.values = {{"f32_fma_gflops", 150}, {"f32_fma_gflops_1", 100}, {"copy_gbs", 20},
              {"copy_gbs_1", 10},      {"triad_gbs", 19},         {"triad_gbs_1", 9},
              {"region_us", 1}};
  return r;
}

// Three steps. conv1: 2e6 FLOP, 1000 bytes; relu: 20,000 bytes; add: next to nothing.
std::vector<Event> events() {
  std::vector<Event> out;
  for (int64_t s = 0; s < 3; ++s) {
    out.push_back(event("conv2d", "conv1", s, s == 1 ? 500 : 40, 2e6, 1000));
    out.push_back(event("conv2d", "conv2", s, 30, 2e6, 1000));
    out.push_back(event("relu", "act", s, 3, 64, 20000));
    out.push_back(event("add", "", s, 2, 1, 12));
    out.push_back(event("relu_grad", "act", s, 4, 64, 30000, true));
  }
  Event captured = event("conv2d", "conv1", 0, 0, 2e6, 1000);
  captured.captured = true;
  out.push_back(captured);
  return out;
}

Profile profile() {
  Profile p;
  p.step = "train";
  p.model = "net";
  p.machine = "Test CPU";
  p.version = "0";
  p.date = "2026-01-31T12:30:00Z";
  p.batch = 8;
  p.steps = 3;
  p.threads = 4;
  p.warmup = 3;
  p.step_us = 100;
  p.step_p10_us = 98;
  p.step_p90_us = 103;
  p.profiled_us = 110;
  p.peak_memory = 4096;
  const Roof r = roof();
  p.roof_date = r.date;
  p.rows = op_costs(events(), 3, &r, 4, "f32");
  return p;
}

const OpCost& row(const std::vector<OpCost>& rows, std::string_view op, std::string_view module) {
  for (const OpCost& r : rows)
    if (r.op == op && r.module == module) return r;
  throw Error(str("no row ", op, " ", module));
}

// Copies, fills and kernels that no scope started: one in each of five steps.
TEST(Profile, WorkOfNoScopeHasItsTime) {
  std::vector<cuda::Activity> records;
  for (int i = 0; i < 5; ++i) {
    cuda::Activity a;
    a.kind = cuda::Activity::Kind::copy;
    a.name = "copy to the device";
    a.start_us = 100.0 * i;
    a.end_us = 100.0 * i + 8;
    a.correlation = static_cast<uint32_t>(i + 1);
    a.bytes = 1 << 20;
    records.push_back(a);
  }
  const auto rows = op_costs(profiler::attribute({}, records), 5, nullptr, 1, "f32");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_DOUBLE_EQ(rows[0].calls, 1);
  EXPECT_DOUBLE_EQ(rows[0].us, 8);
}

TEST(Profile, RowsHoldMediansFloorsAndBounds) {
  const std::vector<OpCost> rows = profile().rows;
  ASSERT_EQ(rows.size(), 5u) << "captured scopes have no row";
  const OpCost& conv = row(rows, "conv2d", "conv1");
  EXPECT_DOUBLE_EQ(conv.us, 40) << "the median, not the mean";
  EXPECT_DOUBLE_EQ(conv.p10_us, 40);
  EXPECT_DOUBLE_EQ(conv.p90_us, 40 + 0.8 * 460);
  EXPECT_DOUBLE_EQ(conv.calls, 1);
  EXPECT_NEAR(conv.floor_us, 2e6 / 150e3, 1e-9);
  EXPECT_EQ(conv.bound, "compute");
  EXPECT_DOUBLE_EQ(conv.gflops(), 50);
  EXPECT_NEAR(conv.roof_percent(), 100.0 * 50 / 150, 1e-9);
  const OpCost& relu = row(rows, "relu", "act");
  EXPECT_DOUBLE_EQ(relu.floor_us, 1);
  EXPECT_EQ(relu.bound, "memory");
  EXPECT_EQ(row(rows, "add", "").bound, "latency");
  EXPECT_EQ(row(rows, "relu_grad", "act").pass, "bwd");
  EXPECT_EQ(rows[0].module, "conv1") << "most headroom first";
  EXPECT_EQ(rows[1].module, "conv2");
  // Without a roof: most time first, no floors.
  const auto bare = op_costs(events(), 3, nullptr, 4, "f32");
  EXPECT_EQ(bare[0].module, "conv1");
  EXPECT_EQ(bare[0].bound, "-");
  EXPECT_EQ(bare[0].floor_us, 0);
}

TEST(Profile, GroupsAddUpAndSayWhatIsMixed) {
  const Profile p = profile();
  const auto by_op = grouped(p.rows, ProfileBy::op);
  ASSERT_EQ(by_op.size(), 4u);
  EXPECT_EQ(by_op[0].op, "conv2d");
  EXPECT_DOUBLE_EQ(by_op[0].us, 70);
  EXPECT_DOUBLE_EQ(by_op[0].calls, 2);
  EXPECT_EQ(by_op[0].module, kMixed);
  EXPECT_EQ(by_op[0].shape, "[8, 16, 4, 4]");
  EXPECT_EQ(grouped(p.rows, ProfileBy::stage).size(), 2u);
  EXPECT_EQ(grouped(p.rows, ProfileBy::module).size(), 5u) << "act has two passes";
  for (const ProfileBy by :
       {ProfileBy::layer, ProfileBy::op, ProfileBy::module, ProfileBy::stage}) {
    double us = 0, floor = 0;
    for (const OpCost& r : grouped(p.rows, by)) us += r.us, floor += r.floor_us;
    EXPECT_NEAR(us, p.ops_us(), 1e-9);
    EXPECT_NEAR(floor, p.floor_us(), 1e-9);
  }
  EXPECT_THROW(profile_by("kernel"), UsageError);
  std::vector<OpCost> paths(3);
  paths[0].module = "layer1.0.conv1", paths[1].module = "layer1.1", paths[2].module = "fc";
  EXPECT_EQ(grouped(paths, ProfileBy::module, 1).size(), 2u);
  EXPECT_EQ(grouped(paths, ProfileBy::module, 1)[0].module, "layer1");
  EXPECT_EQ(grouped(paths, ProfileBy::module, 2).size(), 3u);
}

TEST(Profile, GoldenTable) {
  EXPECT_EQ(
      profile_text(profile(), ProfileBy::op, 3),
      R"(op         pass  module  operand       calls    us     %  sum %  GFLOP/s  GB/s  floor us  % roof  bound    headroom us
conv2d     fwd   *       8x16x4x4 f32      2  70.0  63.6   63.6     57.1   0.0      26.7      38  compute         43.3
relu_grad  bwd   act     8x16x4x4 f32      1   4.0   3.6   67.3      0.0   7.5       1.5      38  memory           2.5
relu       fwd   act     8x16x4x4 f32      1   3.0   2.7   70.0      0.0   6.7       1.0      33  memory           2.0
(1 more)                                   1   2.0   1.8   71.8      0.0   0.0       0.0       0  -                2.0
sum of ops 79.0 us, outside any op 31.0 us
sum of floors 29.2 us = 29.2 % of the measured step; bound by latency: 2.0 us = 1.8 %
step 100.0 us (p10 98.0, p90 103.0, 3 steps after 3 of warm-up), while profiling 110.0 us: profile_overhead +10.0 %
)");
}

// Narrow terminals: texts that repeat and derived numbers go first, times stay.
TEST(Profile, TheTableFitsTheTerminal) {
  for (const size_t room : {40, 60, 80, 100}) {
    std::istringstream lines(profile_text(profile(), ProfileBy::op, 3, room));
    for (std::string line; std::getline(lines, line) && !line.starts_with("--wide");)
      EXPECT_LE(line.size(), room) << line;
  }
  const std::string text = profile_text(profile(), ProfileBy::op, 3, 60);
  EXPECT_THAT(text, HasSubstr("op         pass  module    us     %  % roof  bound\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "--wide shows also: sum %, operand, headroom us, floor us, GB/s, calls, GFLOP/s\n"));
  EXPECT_THAT(profile_text(profile(), ProfileBy::op, 3, 200), Not(HasSubstr("--wide")));
}

TEST(Profile, AFloorAboveTheStepIsDoubted) {
  Profile p = profile();
  EXPECT_THAT(p.doubts(), IsEmpty());
  ASSERT_GT(p.floor_us(), 0);
  p.step_us = p.step_p10_us = p.step_p90_us = p.profiled_us = 0.9 * p.floor_us();
  ASSERT_EQ(p.doubts().size(), 1u);
  EXPECT_THAT(p.doubts()[0], HasSubstr("above the step"));
  EXPECT_THAT(p.doubts()[0], HasSubstr("mtcki roof"));
}

TEST(Profile, ShortGpuOpsAreMarked) {
  std::vector<Event> list = events();
  for (Event& e : list) e.device = "cuda:0";
  Profile p = profile();
  p.device = "cuda:0";
  p.rows = op_costs(list, 3, nullptr, 1, "f32");
  const std::string text = profile_text(p, ProfileBy::layer, 0);
  EXPECT_THAT(text, HasSubstr(" ~3.0 "));
  EXPECT_THAT(text, Not(HasSubstr("~40.0")));
  EXPECT_THAT(text, HasSubstr("host us"));
}

TEST(Profile, JsonRoundTrip) {
  const Profile p = profile();
  const nlohmann::json j = to_json(p);
  EXPECT_EQ(j["schema"], "mtcki-profile/1");
  EXPECT_NEAR(j["profile_overhead"].get<double>(), 0.1, 1e-9);
  EXPECT_EQ(to_json(profile_from_json(j, "x")), j);
  nlohmann::json broken = j;
  EXPECT_EQ(j["idle_us"], 31);
  EXPECT_EQ(j["launch_bound_us"], 2);
  nlohmann::json old = j;  // as the first version wrote it
  for (const char* field : {"warmup", "step_p10_us", "step_p90_us", "clocks", "timeline", "roof"})
    old.erase(field);
  for (auto& op : old["ops"])
    for (const char* field : {"p10_us", "p90_us", "exclusive_us", "launches"}) op.erase(field);
  EXPECT_EQ(profile_from_json(old, "x").idle_us(), 31);
  broken["schema"] = "mtcki-profile/0";
  EXPECT_THROW(profile_from_json(broken, "x"), DataError);
  broken = j;
  broken["ops"][0].erase("us");
  EXPECT_THROW(profile_from_json(broken, "x"), DataError);
  EXPECT_THROW(profile_from_json(nlohmann::json::array(), "x"), DataError);
}

TEST(Profile, CsvHasARowPerLayer) {
  Profile p = profile();
  p.rows[0].note = "winograd, 4x4";
  const std::string csv = profile_csv(p);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 6);
  EXPECT_THAT(csv, HasSubstr("conv2d,fwd,conv1,forward,\"[8, 16, 4, 4]\",f32,plain,cpu,1,40.000,"));
  EXPECT_THAT(csv, HasSubstr("\"winograd, 4x4\"\n"));
}

TEST(Profile, DiffShowsTheLargestChangeFirst) {
  const Profile a = profile();
  Profile b = a;
  b.step_us = 60;
  for (OpCost& r : b.rows) {
    if (r.op == "conv2d") r.us *= 0.5;
    if (r.op == "relu_grad") r.op = "relu_add_grad";
  }
  const std::string text = profile_diff(a, b, ProfileBy::op, 0);
  const auto at = [&](const char* word) { return text.find(word); };
  EXPECT_LT(at("conv2d"), at("relu_grad"));
  EXPECT_THAT(text, HasSubstr("-35.0     0.50"));
  EXPECT_THAT(text, HasSubstr("gone"));
  EXPECT_THAT(text, HasSubstr("new"));
  EXPECT_THAT(profile_diff(a, b, ProfileBy::layer, 2), HasSubstr("conv1 8x16x4x4 f32"));
  EXPECT_THAT(profile_diff(a, b, ProfileBy::layer, 2), HasSubstr("more)"));
  EXPECT_THAT(text, HasSubstr("step, not profiled"));
  EXPECT_THAT(text, Not(HasSubstr("(noise)\nstep"))) << "60 is outside 98 to 103";
  const auto list = changes(a, b, ProfileBy::op);
  EXPECT_TRUE(list[0].row.op == "conv2d" && list[0].noise) << "a step of 500 us is within both";
}

TEST(Profile, TraceIsValidAndNamesItsProcesses) {
  std::vector<Event> list = events();
  list[0].device = "cuda:0";
  list[0].stream = 2;
  list[0].memory = 77;
  list[0].start_us = 5;
  list[0].host_start_us = 1;
  list[0].module = "bad \xff utf-8";
  const nlohmann::json j = nlohmann::json::parse(chrome_trace(list));
  int complete = 0, counters = 0, arrows = 0, names = 0;
  for (const auto& e : j["traceEvents"]) {
    const std::string ph = e.at("ph");
    ASSERT_TRUE(e.at("pid").is_number());
    const bool bar = ph == "X" && e.at("cat") == "step";
    complete += ph == "X" && !bar;
    counters += ph == "C";
    arrows += ph == "s" || ph == "f";
    names += ph == "M";
    if (ph == "X") {
      EXPECT_TRUE(e.at("ts").is_number() && e.at("dur").is_number() && e.at("tid").is_number());
      EXPECT_TRUE(bar || e.at("args").contains("module"));
    }
  }
  EXPECT_EQ(complete, 16) << "15 ops, one of them on the host too";
  EXPECT_EQ(counters, 15);
  EXPECT_EQ(arrows, 2);
  EXPECT_EQ(names, 4) << "host, device, the host's thread, its steps";
  const auto& first = j["traceEvents"][0];
  EXPECT_EQ(first["pid"], 2);
  EXPECT_EQ(first["tid"], 2);
  EXPECT_EQ(j["traceEvents"][1]["args"]["bytes"], 77);
}

TEST(Profile, TraceHasABarForEachStepAndStage) {
  std::vector<Event> list;
  for (const int64_t step : {0, 1})
    for (const char* stage : {"forward", "forward", "backward"}) {
      Event e;
      e.op = "relu", e.step = step, e.stage = stage;
      e.start_us = 10.0 * static_cast<double>(list.size()), e.duration_us = 4;
      list.push_back(e);
    }
  std::vector<std::string> bars;
  const auto trace = nlohmann::json::parse(chrome_trace(list));
  for (const auto& e : trace["traceEvents"])
    if (e["ph"] == "X" && e["cat"] == "step")
      bars.push_back(str(e["name"].get<std::string>(), " ", e["ts"].get<double>(), " to ",
                         e["ts"].get<double>() + e["dur"].get<double>()));
  EXPECT_THAT(bars,
              testing::ElementsAre("step 0 0 to 24", "step 1 30 to 54", "forward 0 to 14",
                                   "backward 20 to 24", "forward 30 to 44", "backward 50 to 54"));
}

// Bars of a track are apart or nested; viewers drop what overlaps.
TEST(Profile, TraceOfKernelsHasAWellNestedTrackPerStream) {
  using profiler::Slice;
  const auto slice = [](Slice::Kind kind, const char* name, int stream, int lane, double start,
                        double us, uint32_t launch) {
    Slice s;
    s.kind = kind, s.name = name, s.stream = stream, s.lane = lane;
    s.start_us = start, s.us = us, s.launch = launch;
    return s;
  };
  std::vector<Event> list = events();
  for (Event& e : list) e.device = "cuda:0";
  const auto j = nlohmann::json::parse(
      chrome_trace(list, {slice(Slice::Kind::call, "cudaGraphLaunch", 0, 0, 1, 2, 9),
                          slice(Slice::Kind::op, "conv2d", 7, 0, 5, 10, 0),
                          slice(Slice::Kind::work, "gemm", 7, 0, 5, 9, 9),
                          slice(Slice::Kind::work, "copy", 7, 1, 8, 9, 0)}));
  int bars = 0, arrows = 0, memory = 0;
  std::set<std::pair<int, int>> tracks;
  for (const auto& e : j["traceEvents"]) {
    bars += e["ph"] == "X";
    arrows += e["ph"] == "s" || e["ph"] == "f";
    memory += e["ph"] == "C";
    if (e["ph"] == "X") tracks.insert({e["pid"].get<int>(), e["tid"].get<int>()});
  }
  EXPECT_EQ(bars, 4) << "the kernels, not the events of the captured step";
  EXPECT_EQ(arrows, 2) << "from the launch to its first kernel";
  EXPECT_EQ(memory, 0) << "a repeated step takes none";
  EXPECT_EQ(tracks.size(), 3u);
}

TEST(Roof, ThreadsScaleUpToTheWhole) {
  const Roof r = roof();
  EXPECT_DOUBLE_EQ(r.peak_gflops("f32", 1), 100);
  EXPECT_DOUBLE_EQ(r.peak_gflops("f32", 2), 150) << "two could do 200 alone, all do 150";
  EXPECT_DOUBLE_EQ(r.peak_gflops("f32", 8), 150);
  EXPECT_DOUBLE_EQ(r.peak_gflops("bf16", 4), 150) << "not measured: as f32";
  EXPECT_DOUBLE_EQ(r.bandwidth_gbs(1), 10);
  EXPECT_DOUBLE_EQ(r.bandwidth_gbs(4), 20);
  EXPECT_DOUBLE_EQ(r.floor(1.5e6, 1000, "f32", 4).us, 10);
  EXPECT_EQ(r.floor(1.5e6, 1000, "f32", 4).bound, "compute");
  EXPECT_DOUBLE_EQ(r.floor(0, 2e6, "f32", 4).us, 100);
  EXPECT_EQ(r.floor(0, 2e6, "f32", 4).bound, "memory");
}

// What is shown as a floor can be reached: tensors may lie in a cache, Winograd does fewer products;
// and on a GPU not undercut: a kernel takes at least its launch.
TEST(Roof, FloorsAreFloors) {
  Roof r = roof();
  EXPECT_DOUBLE_EQ(r.floor(0, 400, "f32", 4).us, 0.02) << "a CPU needs no parallel loop";
  EXPECT_EQ(r.floor(0, 400, "f32", 4).bound, "latency");
  r.values.insert({{"l2_mb", 1}, {"l2_gbs", 200}, {"l3_mb", 8}, {"l3_gbs", 40}});
  EXPECT_DOUBLE_EQ(r.memory_us(1e6, 4), 5);
  EXPECT_DOUBLE_EQ(r.memory_us(8e6, 4), 5 + 175);
  EXPECT_DOUBLE_EQ(r.memory_us(10e6, 4), 5 + 175 + 100) << "what no cache holds comes from memory";
  r.device = "cuda:0";
  r.values["graph_launch_us"] = 1.5;
  EXPECT_DOUBLE_EQ(r.floor(0, 400, "f32", 4, 3).us, 4.5);
  EXPECT_EQ(r.floor(0, 400, "f32", 4, 3).bound, "latency");
  std::vector<Event> list{event("conv2d", "a", 0, 40, 2e6, 1000)};
  list[0].note = "n8 c16, winograd";
  const Roof cpu = roof();
  EXPECT_NEAR(op_costs(list, 1, &cpu, 4, "f32")[0].floor_us, 2e6 / 4 / 150e3, 1e-9);
  list[0].note = "";
  EXPECT_DOUBLE_EQ(op_costs(list, 1, &r, 4, "f32", {{40, 10}})[0].floor_us, 15);
}

TEST(Roof, ABusyMachineShows) {
  Roof r = roof();
  EXPECT_TRUE(r.doubts().empty());
  r.typical = {{"copy_gbs", 19}, {"region_us", 1.1}};
  EXPECT_TRUE(r.doubts().empty());
  r.typical["region_us"] = 3;
  ASSERT_EQ(r.doubts().size(), 1u);
  EXPECT_THAT(r.doubts()[0], HasSubstr("region_us is 1 at best, 3 typically"));
  r.values["f32_fma_gflops"] = 60;
  EXPECT_THAT(r.doubts()[0], HasSubstr("60.0 with 4 threads, 100.0 with one"));
}

TEST(Roof, FilesAreFoundAndRefused) {
  namespace fs = std::filesystem;
  const fs::path dir = fs::path(::testing::TempDir()) / "mtcki_roof_test";
  fs::remove_all(dir);
  setenv("XDG_CACHE_HOME", dir.c_str(), 1);
  const std::string path = default_roof_path(Device::cpu());
  EXPECT_EQ(path, (dir / "mtcki/roof-cpu.json").string());
  std::string why;
  EXPECT_FALSE(find_roof(Device::cpu(), "", &why));
  EXPECT_THAT(why, HasSubstr("mtcki roof"));
  Roof r = roof();
  r.missing = {{"bf16_gemm_gflops", "no kernel"}};
  write_roof(r, path);
  EXPECT_EQ(to_json(read_roof(path)), to_json(r));
  EXPECT_FALSE(find_roof(Device::cpu(), "", &why));
  EXPECT_THAT(why, HasSubstr("another machine (Test CPU)"));
  EXPECT_TRUE(find_roof(Device::cpu(), path, &why)) << "asked for by name";
  EXPECT_THAT(roof_text(r), HasSubstr("not measured: no kernel"));
  std::ofstream(path) << "{}";
  EXPECT_THROW(read_roof(path), DataError);
  EXPECT_THROW(read_roof((dir / "absent.json").string()), DataError);
  fs::remove_all(dir);
}

TEST(Roof, MeasuresThisMachine) {
  RoofOptions o;
  o.megabytes = 1;
  o.gemm = 96;
  o.repeats = 1;
  const Roof r = measure_roof(o);
  for (const char* name : {"copy_gbs", "triad_gbs", "f32_fma_gflops", "f32_gemm_gflops",
                           "bf16_gemm_gflops", "region_us"}) {
    ASSERT_TRUE(r.values.count(name)) << name;
    EXPECT_TRUE(r.values.at(name) > 0 && std::isfinite(r.values.at(name))) << name;
  }
  EXPECT_EQ(r.device, "cpu");
  EXPECT_FALSE(r.machine.empty());
}

// The FLOPs that profiles divide by are those of the definition.
TEST(Workload, FlopsOfKnownNetworks) {
  const auto gflops = [](const char* model, const char* step) {
    WorkloadOptions w;
    w.step = step;
    w.model = model;
    w.batch = 2;
    const Workload run = make_workload(w);
    profiler::start();
    run();
    profiler::stop();
    double sum = 0;
    for (const Event& e : profiler::events())
      if (e.op.rfind("conv2d", 0) == 0 || e.op.rfind("linear", 0) == 0)
        if (e.op.find("bias") == std::string::npos) sum += e.flops;
    return sum / 2 * 1e-9;
  };
  EXPECT_NEAR(gflops("resnet18", "inference"), 1.111, 0.001);
  EXPECT_NEAR(gflops("resnet18", "train"), 3.329, 0.002);
  EXPECT_NEAR(gflops("wrn16_1", "inference"), 0.053, 0.001);
  EXPECT_NEAR(gflops("wrn40_2", "inference"), 0.655, 0.001);
}

TEST(Workload, StepsAreNamed) {
  WorkloadOptions w;
  w.step = "trian";
  try {
    make_workload(w);
    ADD_FAILURE() << "no error";
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), HasSubstr("\"train\""));
  }
}

}  // namespace
}  // namespace mtcki
