// Where the time of a training step goes: every op opens a profiler scope that knows its FLOPs and
// bytes, its module and its stage. `mtcki profile` prints the same with shares, and a Chrome trace.
// Expect: forward convolutions: 12\.50 M multiply-accumulates per image
#include <algorithm>
#include <cstdio>
#include <map>

#include "autograd/functions.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "tensor/profiler.h"

using namespace mtcki;

int main() {
  nn::Init init(0);
  nn::ModelSpec spec;
  spec.name = "resnet8";
  const auto net = nn::make_classifier(spec, init);
  const auto sgd = optim::make_sgd(*net, {.lr = 0.1, .momentum = 0.9});
  const Tensor x = randn({32, 3, 32, 32}, Rng{0, rng_stream("x"), 0});
  const Tensor y = randint(0, 10, {32}, Rng{0, rng_stream("y"), 0});
  const auto step = [&] {
    sgd->zero_grad();
    cross_entropy((*net)(x), y).backward();
    sgd->step();
  };
  step();  // the first pass makes the plans and fills the memory cache
  profiler::start();
  step();
  profiler::stop();

  struct Row {
    int calls = 0;
    double us = 0, flops = 0, bytes = 0;
  };
  std::map<std::string, Row> rows;
  double total = 0, forward_conv_flops = 0;
  for (const profiler::Event& e : profiler::events()) {
    Row& row = rows[e.op + (e.backward ? " (backward)" : "")];
    ++row.calls;
    row.us += e.self_us;
    row.flops += e.flops;
    row.bytes += e.bytes;
    total += e.self_us;
    if (e.op == "conv2d" && !e.backward) forward_conv_flops += e.flops;
  }
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
  std::printf("%-34s %5s %9s %6s %9s %7s\n", "op", "calls", "us", "share", "GFLOP/s", "GB/s");
  for (const auto& [name, row] : sorted)
    std::printf("%-34s %5d %9.0f %5.1f%% %9.1f %7.1f\n", name.c_str(), row.calls, row.us,
                100 * row.us / total, row.flops / row.us * 1e-3, row.bytes / row.us * 1e-3);
  // Two FLOPs each; resnet8 has 12,500,992 by hand.
  const double per_image = forward_conv_flops / 2 / 32;
  std::printf("forward convolutions: %.2f M multiply-accumulates per image\n", per_image / 1e6);
}
