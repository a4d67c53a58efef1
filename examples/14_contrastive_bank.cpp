// What a bank of past features is good for. Batches of rows are made one after the other, each
// pulled towards the same direction: the stand-in for images that a classifier is to recognise.
// Alone, every batch becomes the same. With the contrast against the bank, new rows keep away from
// all rows that were made before, although none of these is in memory as more than a feature.
//
// Expect: more diverse with the bank: yes
#include <cstdio>

#include "autograd/functions.h"
#include "mtcki/evaluation/metrics.h"
#include "mtcki/losses/history_contrast.h"
#include "optim/optimizer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/softmax.h"

using namespace mtcki;

namespace {

constexpr int64_t kRows = 16, kDim = 24, kBatches = 8;

// Makes the batches; returns all rows. weight: of the contrast.
Tensor make_rows(double weight) {
  nn::Sequential identity;  // in the method, a small network that projects features
  MemoryBank bank(kRows * kBatches, kDim, DType::f32);
  const Tensor goal = normalize(randn({1, kDim}, Rng{14, rng_stream("goal"), 0}));
  std::vector<Tensor> all;
  for (uint64_t batch = 0; batch < kBatches; ++batch) {
    const Variable x(randn({kRows, kDim}, Rng{14, rng_stream("start"), batch}), true);
    const auto adam = optim::make_adam({{{{"x", x}}}}, {.lr = 0.05});
    for (uint64_t step = 0; step < 80; ++step) {
      adam->zero_grad();
      // Recognised: the cosine with the goal should be 1.
      Variable loss = neg(mean(sum(normalize(x) * Variable(goal), {1})));
      if (weight > 0) {
        // Two views of each row: itself, and itself with a little noise.
        const Rng noise{14, rng_stream("noise"), batch * 100 + step};
        const Variable view = x + Variable(mul(randn({kRows, kDim}, noise), 0.1));
        const MemoryBank::Draw past = bank.draw(64, noise);
        loss = loss + weight * contrast_loss(identity, view, x.data(), past, /*tau=*/0.1);
      }
      loss.backward();
      adam->step();
    }
    bank.add(x.data(), x.data());
    all.push_back(x.data());
    const Tensor so_far = cat(all);
    std::printf("  batch %d  bank %3d rows  diversity of all rows so far %.3f\n",
                static_cast<int>(batch + 1), static_cast<int>(bank.filled()),
                pairwise_diversity(so_far));
  }
  return cat(all);
}

}  // namespace

int main() {
  std::printf("without the contrast\n");
  const double without = pairwise_diversity(make_rows(0.0));
  std::printf("with the contrast against batch and bank\n");
  const double with = pairwise_diversity(make_rows(0.3));
  std::printf("diversity %.3f without, %.3f with\n", without, with);
  std::printf("more diverse with the bank: %s\n", with > without + 0.1 ? "yes" : "no");
}
