// Every distinct convolution of the model zoo and the generator, in three directions; on the CPU
// oneDNN against the built-in kernels and the automatic choice. FLOP/s are nominal (2 MAC per tap),
// so that Winograd may exceed the machine's peak.
//
//   conv_bench --benchmark_filter='64->64 16x16' --benchmark_repetitions=5
#include <memory>
#include <set>
#include <tuple>

#include "bench_common.h"
#include "nn/models/model.h"
#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

struct Layer {
  int64_t c, k, size, kernel, stride;
  std::string name() const {
    return str(c, "->", k, " ", size, "x", size, kernel == 1 ? " 1x1" : "",
               stride == 2 ? " s2" : "");
  }
  auto key() const { return std::tie(size, c, k, kernel, stride); }
  bool operator<(const Layer& o) const { return key() > o.key(); }
};

// What a forward of one image passes through.
void collect(nn::Module& net, const Tensor& x, std::set<Layer>* layers) {
  std::vector<nn::HookHandle> hooks;
  for (auto& [path, module] : net.named_modules())
    if (auto* conv = dynamic_cast<nn::Conv2d*>(module))
      hooks.push_back(conv->add_after_hook(
          [conv, layers](const nn::Module&, const Variable& in, const Variable& out) {
            layers->insert({in.size(1), out.size(1), in.size(2), conv->weight.size(2),
                            in.size(2) / out.size(2)});
          }));
  net.eval();
  const NoGradScope no_grad;
  net(x);
}

std::set<Layer> layers_of_the_zoo() {
  std::set<Layer> layers;
  const auto add = [&](const std::string& model, int64_t channels, int64_t size) {
    nn::Init init(0);
    const auto net = nn::make_classifier({model, channels, size, 10}, init);
    collect(*net, Tensor::zeros({1, channels, size, size}), &layers);
  };
  for (const char* model : {"wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2", "resnet18", "resnet34",
                            "resnet8x4", "vgg8", "vgg11", "vgg16"})
    add(model, 3, 32);
  add("resnet8", 1, 28);
  nn::Init init(0);
  const nn::GeneratorSpec spec;
  const auto generator = nn::make_generator(spec, init);
  collect(*generator, Tensor::zeros({1, spec.nz}), &layers);
  return layers;
}

bench::Case layer(const Layer& l, int direction, nn::Precision precision, CpuKernels kernels) {
  const DType dtype = precision == nn::Precision::bf16 ? DType::bf16 : DType::f32;
  Conv2dOptions o(l.stride, l.kernel / 2);
  o.math = precision == nn::Precision::tf32 ? Math::tf32 : Math::strict;
  const Tensor x = bench::noise({bench::batch(), l.c, l.size, l.size}, dtype);
  const Tensor w = bench::noise({l.k, l.c, l.kernel, l.kernel}, DType::f32).to(Layout::plain);
  const Tensor gy = conv2d(x, w, Tensor(), o);
  bench::Case c;
  c.precision = precision;
  c.captured = true;
  // Each case sets its own: cases run one after the other in one process.
  c.prepare = [kernels] { set_cpu_kernels(kernels); };
  if (direction == 0) c.work = [=] { conv2d(x, w, Tensor(), o); };
  if (direction == 1) c.work = [=] { conv2d_grad_input(gy, w, x.shape(), o); };
  if (direction == 2) c.work = [=] { conv2d_grad_weight(gy, x, w.shape(), o); };
  return c;
}

void register_cases() {
  const char* const directions[] = {"forward", "grad_input", "grad_weight"};
  std::vector<std::pair<std::string, CpuKernels>> kernels{{"automatic", CpuKernels::automatic}};
  if (bench::device().is_cpu()) {
    kernels.emplace_back("builtin", CpuKernels::builtin);
    if (onednn_available()) kernels.emplace_back("onednn", CpuKernels::onednn);
  }
  for (const Layer& l : layers_of_the_zoo())
    for (int d = 0; d < 3; ++d)
      for (const nn::Precision precision : bench::precision_axis())
        for (const auto& [name, setting] : kernels)
          bench::add(str(l.name(), "/", directions[d], "/", nn::name_of(precision), "/", name),
                     [=, s = setting] { return layer(l, d, precision, s); });
}

}  // namespace

int main(int argc, char** argv) { return bench::main(argc, argv, register_cases); }
