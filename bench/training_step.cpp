// One training step as bench/baseline_torch.py and bench/gpu_torch.py do it: forward, cross
// entropy, backward, SGD with momentum 0.9 and weight decay 5e-4, on random 3x32x32 images.
#include "step_common.h"

int main(int argc, char** argv) {
  return mtcki::bench::step_main(argc, argv, "training_step", "train", "wrn16_1");
}
