// Convolutions of few channels on a GPU: cuDNN, and our kernels (by name), for weight gradients
// with each division among blocks. Operands take turns, so that the caches do not keep them; calls
// are captured, so that the host has no part in the time.
//
//   MTCKI_BENCH_DEVICE=cuda conv_narrow_bench --benchmark_filter='n128 '
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "bench_common.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/narrow_cuda.h"
#include "tensor/ops/conv/wgmma_cuda.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header
namespace narrow = conv_cuda::narrow;
namespace wgmma = conv_cuda::wgmma;

ConvProblem problem(int64_t n, int64_t c, int64_t k, int64_t size, int64_t kernel, int64_t stride) {
  ConvProblem d;
  d.n = n, d.c = c, d.h = d.w = size, d.k = k, d.r = d.s = kernel;
  d.stride_h = d.stride_w = stride, d.pad_h = d.pad_w = kernel / 2;
  d.p = d.q = (size + 2 * d.pad_h - kernel) / stride + 1;
  return d;
}

struct Set {
  Tensor x, gy, gw;
};
using Sets = std::shared_ptr<std::vector<Set>>;

// Of the same problem as in the case before: the same ones.
Sets operands(const ConvProblem& d) {
  static std::string last;
  static Sets sets;
  if (last == shape_note(d, "")) return sets;
  last = shape_note(d, "");
  sets = std::make_shared<std::vector<Set>>();
  const int64_t bytes = 2 * (d.x_size() + d.y_size());
  const Tensor x = bench::noise({d.n, d.c, d.h, d.w}, DType::bf16);
  const Tensor gy = bench::noise({d.n, d.k, d.p, d.q}, DType::bf16, 1);
  for (int64_t i = std::clamp<int64_t>((int64_t{160} << 20) / bytes, 2, 32); i > 0; --i)
    sets->push_back(
        {x.clone(), gy.clone(), Tensor::empty({d.k, d.c, d.r, d.s}, DType::f32, bench::device())});
  return sets;
}

// by: null for what conv2d_grad_weight does with `kernels`.
bench::Case gradient(const ConvProblem& d, CudaConv kernels, const narrow::Division* by) {
  const Sets sets = operands(d);
  const auto graph = std::make_shared<StepGraph>(true);
  bench::Case c;
  c.precision = nn::Precision::bf16;
  c.repeats = static_cast<double>(sets->size());
  const narrow::Division own = by ? *by : narrow::Division{};
  const bool direct = by != nullptr;
  c.work = [=] {
    math_settings().cuda_conv = kernels;
    graph->run("step", [&] {
      for (const Set& s : *sets)
        if (direct)
          narrow::grad_weight(d, s.gy, s.x, s.gw, {d.c * d.r * d.s, d.r * d.s, d.s, 1}, own);
        else
          conv2d_grad_weight(s.gy, s.x, s.gw.shape(), Conv2dOptions(d.stride_h, d.pad_h),
                             DType::f32);
    });
  };
  for (int i = 0; i < StepGraph::kWarmup + 2; ++i) c.work();
  return c;
}

enum class By { cudnn, narrow, wgmma };

// Forward and input gradient: cuDNN's fastest, and ours.
bench::Case whole(const ConvProblem& d, bool turned, By by) {
  const Sets sets = operands(d);
  const auto graph = std::make_shared<StepGraph>(true);
  const Tensor w = bench::noise({d.k, d.c, d.r, d.s}, DType::bf16, 2).to(Layout::channels_last);
  const auto out = std::make_shared<std::vector<Tensor>>();
  for (const Set& s : *sets) out->push_back(turned ? s.x.clone() : s.gy.clone());
  bench::Case c;
  c.precision = nn::Precision::bf16;
  c.repeats = static_cast<double>(sets->size());
  c.work = [=] {
    math_settings().cuda_conv = by == By::cudnn ? CudaConv::cudnn : CudaConv::automatic;
    math_settings().autotune = true;
    graph->run("step", [&] {
      for (size_t i = 0; i < sets->size(); ++i) {
        const Set& s = (*sets)[i];
        if (by != By::cudnn && turned) {
          (by == By::wgmma ? wgmma::grad_input : narrow::grad_input)(d, s.gy, w, (*out)[i], false);
        } else if (by != By::cudnn) {
          (by == By::wgmma ? wgmma::forward : narrow::forward)(d, s.x, w, {}, (*out)[i]);
        } else if (turned) {
          (*out)[i] = conv2d_grad_input(s.gy, w, s.x.shape(), Conv2dOptions(1, 1));
        } else {
          (*out)[i] = conv2d(s.x, w, {}, Conv2dOptions(1, 1));
        }
      }
    });
  };
  for (int i = 0; i < StepGraph::kWarmup + 2; ++i) c.work();
  return c;
}

void add(const ConvProblem& d) {
  const auto name = [&](const std::string& how) { return shape_note(d, "") + "/" + how; };
  for (const bool turned : {false, true}) {
    const bool by_wgmma = turned ? wgmma::supports_grad_input(d) : wgmma::supports_forward(d);
    if (!narrow::supports_whole(d) && !by_wgmma) continue;
    const auto way = [&](const char* how, By by) {
      bench::add(name(str(turned ? "grad_input/" : "forward/", how)),
                 [=] { return whole(d, turned, by); });
    };
    way("cudnn", By::cudnn);
    if (narrow::supports_whole(d)) way("narrow", By::narrow);
    if (by_wgmma) way("wgmma", By::wgmma);
  }
  if (!narrow::supports(d)) return;
  bench::add(name("cudnn"), [=] { return gradient(d, CudaConv::cudnn, nullptr); });
  bench::add(name("automatic"), [=] { return gradient(d, CudaConv::automatic, nullptr); });
  const narrow::Division base = narrow::division(d);
  for (const int in : {8, 16, 32})
    for (const int out : {16, 32, 64}) {
      if ((in == 8) != (d.c <= 8) || (in > 8 && d.c % in != 0) || d.k % out != 0) continue;
      if (in == 16 && (out == 64 || d.c % 32 == 0)) continue;
      const int chunks = base.pieces * base.out / out;
      for (const int pieces : {chunks / 4, chunks / 2, chunks, chunks * 2, chunks * 4})
        if (pieces > 0)
          bench::add(name(str(in, "->", out, " in ", pieces)), [=] {
            const narrow::Division by{out, in, pieces};
            return gradient(d, CudaConv::automatic, &by);
          });
    }
}

void register_cases() {
  if (!bench::device().is_cuda()) return;
  for (const int64_t n : {128, 256, 1024}) {  // WRN-16-1
    add(problem(n, 3, 16, 32, 3, 1));
    add(problem(n, 16, 16, 32, 3, 1));
    add(problem(n, 16, 32, 32, 3, 2));
    add(problem(n, 16, 32, 32, 1, 2));
    add(problem(n, 32, 32, 16, 3, 1));
    add(problem(n, 32, 64, 16, 3, 2));
    add(problem(n, 32, 64, 16, 1, 2));
    add(problem(n, 64, 64, 8, 3, 1));
  }
  for (const int64_t n : {256}) {  // WRN-40-2, ResNet-18
    add(problem(n, 32, 32, 32, 3, 1));
    add(problem(n, 32, 64, 32, 3, 2));
    add(problem(n, 64, 64, 16, 3, 1));
    add(problem(n, 64, 128, 16, 3, 2));
    add(problem(n, 128, 128, 8, 3, 1));
    add(problem(n, 3, 64, 32, 3, 1));
    add(problem(n, 64, 64, 32, 3, 1));
    add(problem(n, 128, 64, 32, 3, 1));  // generator
    add(problem(n, 64, 128, 16, 3, 1));  // VGG-11
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::main(argc, argv, register_cases); }
