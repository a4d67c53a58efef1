// Which kernels a convolution gets: the rule of tensor/ops/conv/select.cpp as a table.
#include "tensor/ops/conv/select.h"

#include <gtest/gtest.h>

#include <cctype>
#include <string>

#include "tensor/kernels/simd.h"
#include "tests/tensor/ops/conv/conv_testing.h"

namespace mtcki {
namespace {

using namespace conv_testing;  // NOLINT: a test's vocabulary

struct Row {
  int64_t c, k, size, kernel, stride;
  // Forward, input gradient, weight gradient; W Winograd, D direct, O oneDNN, C one convolution
  // per channel, G groups, P pointwise.
  const char *builtin, *avx512, *avx2;
};
constexpr Row kRule[] = {
    // The 3x3 layers of a network, at both strides; the narrowest at stride 2 are oneDNN's.
    {64, 64, 32, 3, 1, "WWW", "WWW", "WWW"},
    {512, 512, 4, 3, 1, "WWW", "WWW", "WWW"},
    {64, 128, 32, 3, 2, "WWW", "WWW", "WWW"},
    {16, 32, 32, 3, 2, "WWW", "OOO", "WWO"},
    // The first layer: images of one and of three channels.
    {3, 64, 32, 3, 1, "DDD", "ODD", "ODO"},
    {3, 16, 32, 3, 1, "DDD", "ODO", "ODO"},
    {1, 16, 28, 3, 1, "DDD", "ODD", "ODD"},
    // A generator's last layer.
    {64, 3, 32, 3, 1, "DDD", "DOD", "DOD"},
    // Shortcuts, and kernels that Winograd does not know.
    {64, 128, 32, 1, 2, "DDD", "OOO", "ODO"},
    {64, 64, 32, 1, 1, "DDD", "OOO", "OOO"},
    // Channels that are no whole blocks; not on maps that are no whole vectors, or short in the sum.
    {58, 58, 16, 1, 1, "PPP", "PPP", "PPP"},
    {58, 64, 4, 1, 1, "PPD", "PPO", "PPO"},
    {58, 58, 7, 1, 1, "DDD", "OOO", "OOO"},
    {64, 128, 32, 5, 2, "DDD", "DDO", "DDD"},
};

ConvProblem problem(const Row& r) {
  ConvProblem d;
  d.n = 4;
  d.c = r.c;
  d.k = r.k;
  d.h = d.w = r.size;
  d.r = d.s = r.kernel;
  d.stride_h = d.stride_w = r.stride;
  d.pad_h = d.pad_w = r.kernel / 2;
  d.p = d.q = (r.size + 2 * d.pad_h - r.kernel) / r.stride + 1;
  return d;
}

std::string chosen(const ConvProblem& d) {
  std::string out;
  for (const ConvPass pass : {ConvPass::forward, ConvPass::grad_input, ConvPass::grad_weight}) {
    const std::string name = select_conv(d, pass).name;
    out += name == "depthwise" ? 'C' : static_cast<char>(std::toupper(name[0]));
  }
  return out;
}

TEST(SelectConv, BuiltinKernels) {
  const KernelSetting setting({CpuKernels::builtin, true});
  for (const Row& r : kRule) EXPECT_EQ(chosen(problem(r)), r.builtin) << shape_note(problem(r), "");
}

TEST(SelectConv, AutomaticWithOneDnn) {
  if (!onednn_available()) GTEST_SKIP() << "built without oneDNN";
  const KernelSetting setting({CpuKernels::automatic, true});
  for (const Row& r : kRule)
    EXPECT_EQ(chosen(problem(r)), kSimdBytes == 64 ? r.avx512 : r.avx2)
        << shape_note(problem(r), "");
}

TEST(SelectConv, WithoutWinograd) {
  for (const CpuKernels kernels : {CpuKernels::automatic, CpuKernels::builtin}) {
    const KernelSetting setting({kernels, false});
    for (const Row& r : kRule)
      EXPECT_EQ(chosen(problem(r)).find('W'), std::string::npos) << shape_note(problem(r), "");
  }
}

TEST(SelectConv, OneDnnWhereItIsAskedFor) {
  if (!onednn_available()) GTEST_SKIP() << "built without oneDNN";
  const KernelSetting setting({CpuKernels::onednn, true});
  for (const Row& r : kRule) EXPECT_EQ(chosen(problem(r)), "OOO") << shape_note(problem(r), "");
}

// Winograd's kernels know one geometry; everything else about a 3x3 layer sends it elsewhere.
TEST(SelectConv, WinogradHasOneGeometry) {
  const KernelSetting setting({CpuKernels::builtin, true});
  const ConvProblem whole = problem(kRule[0]);
  const auto changed = [&](auto&& change) {
    ConvProblem d = whole;
    change(d);
    return chosen(d);
  };
  EXPECT_EQ(chosen(whole), "WWW");
  EXPECT_EQ(changed([](ConvProblem& d) { d.groups = 2; }), "GGG");
  EXPECT_EQ(changed([](ConvProblem& d) { d.groups = 64; }), "CCC");
  EXPECT_EQ(changed([](ConvProblem& d) { d.dil_h = d.dil_w = 2; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.stride_w = 2; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.stride_h = d.stride_w = 3; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.s = 1; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.c = 60; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.pad_h = d.pad_w = 3; }), "DDD");
  EXPECT_EQ(changed([](ConvProblem& d) { d.pad_h = d.pad_w = 0; }), "WWW");
}

}  // namespace
}  // namespace mtcki
