// One inversion step as bench/baseline_torch.py and bench/gpu_torch.py do it: generator (256 ->
// 3x32x32, 64 base channels) in train mode, frozen teachers in eval mode, BN-statistics loss over
// all their batch norms + cross entropy, backward to latents and generator, Adam. --model names the
// teachers.
#include "step_common.h"

int main(int argc, char** argv) {
  return mtcki::bench::step_main(argc, argv, "inversion_step", "inversion", "wrn40_2");
}
