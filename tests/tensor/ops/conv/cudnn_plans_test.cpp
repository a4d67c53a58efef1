// What cuDNN would run on an H200 and an A100, asked without a GPU: every convolution of the model
// zoo has a plan in each precision and direction, by the functions that convolve() uses. And the
// file that keeps plans: what was stored makes the same plan again.
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "nn/models/model.h"
#include "tensor/cuda/native/plan_file.h"
#include "tensor/ops/conv/cuda.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using cuda::Candidate;
using cuda::Convolution;
using cuda::Descriptor;
namespace fs = std::filesystem;

Descriptor device(const std::string& name) {
  std::ifstream in(MTCKI_SOURCE_DIR "/tests/data/devices/" + name + ".json");
  std::stringstream text;
  text << in.rdbuf();
  cuda::keep_nvrtc_loaded();
  return cuda::device_from_json(text.str());
}

// Reads the sizes back from the note of a profiled convolution (shape_note).
void add_convolution(const std::string& note, std::map<std::string, ConvProblem>& zoo) {
  static const std::regex pattern(
      R"( n\d+ (\d+)->(\d+) (\d+)x(\d+) k(\d+)x(\d+) s(\d+) p(\d+)( d\d+)?( g\d+)?$)");
  std::smatch m;
  ASSERT_TRUE(std::regex_search(note, m, pattern)) << note;
  ASSERT_FALSE(m[9].matched) << note << ": dilation is not read here";
  if (m[10].matched) return;  // groups: im2col does those that cuDNN has no plan for
  const auto number = [&](size_t i) { return std::stoll(m[i]); };
  ConvProblem d;
  d.n = 128;
  d.c = number(1), d.k = number(2), d.h = number(3), d.w = number(4), d.r = number(5),
  d.s = number(6);
  d.stride_h = d.stride_w = number(7);
  d.pad_h = d.pad_w = number(8);
  d.p = (d.h + 2 * d.pad_h - d.r) / d.stride_h + 1;
  d.q = (d.w + 2 * d.pad_w - d.s) / d.stride_w + 1;
  zoo[note.substr(note.find("->") - m[1].length())] = d;
}

// The convolutions that the registered networks run on 32x32 colour and 28x28 grey images: recorded
// from a forward pass of one image on the CPU.
const std::map<std::string, ConvProblem>& zoo() {
  static const std::map<std::string, ConvProblem> all = [] {
    std::map<std::string, ConvProblem> found;
    profiler::start();
    for (const auto& [channels, size] : {std::pair<int64_t, int64_t>{3, 32}, {1, 28}}) {
      nn::Init init;
      init.draw = false;
      for (const std::string& name : nn::classifier_names()) {
        try {
          auto net = nn::make_classifier({name, channels, size, 10}, init);
          net->eval();
          (*net)(Variable(Tensor::zeros({1, channels, size, size})));
        } catch (const UsageError&) {  // densenet121_in does not take 28 pixels
        }
      }
      for (const char* name : {"cmi", "large", "dcgan"}) {
        nn::GeneratorSpec spec;
        spec.name = name;
        spec.channels = channels;
        spec.image_size = size;
        try {
          auto net = nn::make_generator(spec, init);
          net->eval();
          (*net)(Variable(Tensor::zeros({1, spec.nz})));
        } catch (const UsageError&) {  // not every generator has every size
        }
      }
    }
    profiler::stop();
    for (const profiler::Event& e : profiler::events())
      if (e.op == "conv2d" || e.op == "conv_transpose2d") add_convolution(e.note, found);
    return found;
  }();
  return all;
}

struct Precision {
  const char* name;
  DType dtype;
  Math math;
};
const Precision kPrecisions[] = {{"f32 strict", DType::f32, Math::strict},
                                 {"tf32", DType::f32, Math::tf32},
                                 {"bf16", DType::bf16, Math::strict}};
const std::pair<const char*, ConvPass> kPasses[] = {{"forward", ConvPass::forward},
                                                    {"grad_input", ConvPass::grad_input},
                                                    {"grad_weight", ConvPass::grad_weight}};

void every_convolution_has_plans(const char* gpu) {
  const Descriptor properties = device(gpu);
  int asked = 0;
  for (const auto& [text, problem] : zoo())
    for (const Precision& p : kPrecisions)
      for (const auto& [pass_name, pass] : kPasses) {
        Convolution c{problem, pass, p.dtype, p.math, true};
        if (pass != ConvPass::grad_input)
          c.problem.c = conv_cuda::padded_channels(problem, p.dtype, p.math);
        ++asked;
        const Descriptor graph = cuda::conv_graph(c);
        const std::vector<Candidate> allowed = cuda::candidates(c, graph, properties);
        ASSERT_FALSE(allowed.empty())
            << gpu << ": no deterministic plan for " << pass_name << " " << p.name << " " << text;
        for (const Candidate& candidate : allowed) {
          EXPECT_LE(candidate.workspace, cuda::kConvWorkspace);
          EXPECT_TRUE(candidate.deterministic);
          if (p.dtype == DType::f32 && p.math == Math::strict) {
            EXPECT_FALSE(candidate.tensor_core || candidate.reduced) << text;
          }
        }
      }
  EXPECT_EQ(asked, static_cast<int>(zoo().size()) * 9);
}
TEST(CudnnPlans, EveryConvolutionHasPlans) {
  EXPECT_GT(zoo().size(), 40u);
  for (const char* known :
       {"3->16 32x32 k3x3 s1 p1", "1->64 28x28 k3x3 s1 p1", "512->512 4x4 k3x3 s1 p1"})
    EXPECT_TRUE(zoo().count(known)) << known;
  for (const char* gpu : {"h200", "a100"}) every_convolution_has_plans(gpu);
}

Convolution example(ConvPass pass, DType dtype, Math math) {
  ConvProblem d;
  d.n = 128, d.c = d.k = 64, d.h = d.w = d.p = d.q = 32, d.r = d.s = 3;
  d.pad_h = d.pad_w = 1;
  return {d, pass, dtype, math, true};
}

TEST(CudnnPlans, StrictMeansNoTensorCores) {
  // The first strict engine is not among the first that cuDNN proposes.
  const Convolution c = example(ConvPass::forward, DType::f32, Math::strict);
  const Descriptor h200 = device("h200"), graph = cuda::conv_graph(c);
  EXPECT_TRUE(cuda::heuristics(graph, h200, CUDNN_HEUR_MODE_A).at(0).tensor_core);
  const std::vector<Candidate> allowed = cuda::candidates(c, graph, h200);
  EXPECT_FALSE(allowed.empty());
  for (const Candidate& candidate : allowed) EXPECT_FALSE(candidate.tensor_core);
}

TEST(CudnnPlans, InputGradientsMayAddToWhatIsThere) {
  const Descriptor h200 = device("h200");
  for (const Precision& p : kPrecisions)
    for (const int64_t channels : {16, 64, 512}) {
      Convolution c = example(ConvPass::grad_input, p.dtype, p.math);
      c.problem.c = c.problem.k = channels;
      c.accumulate = true;
      const std::vector<Candidate> found = cuda::candidates(c, cuda::conv_graph(c), h200);
      ASSERT_FALSE(found.empty()) << p.name << " " << channels;
      EXPECT_NO_THROW(cuda::build_plan(found.front(), h200)) << p.name << " " << channels;
    }
}

TEST(CudnnPlans, EngineAndKnobsMakeTheSamePlanAgain) {
  const Descriptor h200 = device("h200");
  const auto json = [&](const Candidate& candidate) {
    return cuda::build_plan(candidate, h200)
        .descriptor.text(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
  };
  for (const Precision& p : kPrecisions)
    for (const auto& [pass_name, pass] : kPasses) {
      const Convolution c = example(pass, p.dtype, p.math);
      const Descriptor graph = cuda::conv_graph(c);
      std::vector<Candidate> some = cuda::candidates(c, graph, h200);
      some.erase(some.begin() + static_cast<ptrdiff_t>(std::min<size_t>(some.size(), 4)),
                 some.end());
      for (const Candidate& first : some) {
        const Candidate again = cuda::from_choice(graph, h200, first.choice);
        EXPECT_EQ(again.workspace, first.workspace);
        EXPECT_EQ(again.tensor_core, first.tensor_core);
        EXPECT_TRUE(cuda::allowed(c, again));
        const std::string plan = json(first);
        EXPECT_FALSE(plan.empty());
        EXPECT_EQ(json(again), plan)
            << pass_name << " " << p.name << " engine " << first.choice.engine;
      }
    }
}

class PlanFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::path(::testing::TempDir()) / "mtcki_plan_file";
  const std::string path_ = (folder_ / "deep" / "plans.json").string();
};

TEST_F(PlanFileTest, KeepsPlans) {
  const cuda::StoredPlan plan{{67, {{3, 1}, {7, 40}}}, 4096, 12.5};
  cuda::PlanFile file(path_), other(path_);
  EXPECT_FALSE(file.find("a"));
  file.put("a", plan);
  other.put("b", {{5, {}}, 0, 1});  // another process: what the file holds by now is kept
  const cuda::PlanFile again(path_);
  ASSERT_TRUE(again.find("a"));
  EXPECT_EQ(again.find("a")->choice, plan.choice);
  EXPECT_EQ(again.find("a")->workspace, 4096);
  EXPECT_EQ(again.find("a")->microseconds, 12.5);
  ASSERT_TRUE(again.find("b"));
  // Nothing temporary: the file and its lock.
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "deep"), {}), 2);
}

TEST_F(PlanFileTest, SeveralWritersLoseNothing) {
  const auto write = [&](const std::string& prefix) {
    cuda::PlanFile file(path_);
    for (int i = 0; i < 40; ++i) file.put(prefix + std::to_string(i), {{i, {}}, 0, 1});
  };
  std::thread other(write, "a");
  write("b");
  other.join();
  const cuda::PlanFile all(path_);
  for (int i = 0; i < 40; ++i)
    for (const char* prefix : {"a", "b"}) EXPECT_TRUE(all.find(prefix + std::to_string(i)));
}

TEST_F(PlanFileTest, LeavesForeignFilesAlone) {
  for (const std::string& text :
       {std::string("not JSON"), std::string(R"({"format": 2, "plans": {}})"), std::string("[1]"),
        std::string(R"({"format": 1, "plans": {"a": {"engine": "x"}}})")}) {
    fs::create_directories(folder_ / "deep");
    std::ofstream(path_) << text;
    ::testing::internal::CaptureStderr();
    cuda::PlanFile file(path_);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr("are not read"));
    EXPECT_FALSE(file.find("a"));
    file.put("a", {{1, {}}, 0, 1});
    EXPECT_TRUE(file.find("a"));  // for this process
    std::stringstream now;
    now << std::ifstream(path_).rdbuf();
    EXPECT_EQ(now.str(), text);
  }
}

TEST(PlanKey, NamesEverythingThatMatters) {
  const Convolution c = example(ConvPass::forward, DType::f32, Math::strict);
  const cuda::Gpu h200{9, 0, 132};
  std::set<std::string> keys{cuda::plan_key(c, h200),
                             cuda::plan_key(c, {8, 0, 108}),
                             cuda::plan_key(c, {9, 0, 114}),
                             cuda::plan_key(c, {9, 0, 132, "NVIDIA H100"}),
                             cuda::plan_key(c, {9, 0, 132, "NVIDIA H200"}),
                             cuda::plan_key(c, {9, 0, 132, "NVIDIA H200", 13000})};
  const auto with = [&](const auto& change) {
    Convolution other = c;
    change(other);
    keys.insert(cuda::plan_key(other, h200));
  };
  with([](Convolution& o) { o.math = Math::tf32; });
  with([](Convolution& o) { o.dtype = DType::bf16; });
  with([](Convolution& o) { o.pass = ConvPass::grad_weight; });
  with([](Convolution& o) { o.deterministic = false; });
  with([](Convolution& o) { o.problem.n = 64; });
  with([](Convolution& o) { o.problem.stride_w = 2; });
  with([](Convolution& o) { o.problem.dil_h = 2; });
  with([](Convolution& o) { o.problem.groups = 2; });
  EXPECT_EQ(keys.size(), 14u);
}

}  // namespace
}  // namespace mtcki
