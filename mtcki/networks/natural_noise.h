// Noise with the spectrum and the colours of natural images.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mtcki {

// f32 [n, channels, size, size], mean 0, variance 1: a sum of octaves of bilinear value noise, an
// octave of half the frequency 2^(slope-1) times as strong. slope 0: white; 1: the 1/f amplitude of
// natural images (Field 1987, J. Opt. Soc. Am. A 4). Three channels are correlated as colours are.
// Always the same values for the same arguments.
Tensor natural_noise(int64_t n, int64_t channels, int64_t size, double slope);

}  // namespace mtcki
