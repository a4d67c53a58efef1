// Feature exchange (SpaceshipNet; Yu et al., CVPR 2023): images that no latents make, decoded from maps
// of a generator half of whose channels come from another image.
//
//   F'_i = m_i F_i + (1 − m_i) F_j,  m_i in {0,1}^C with floor(C/2) ones, drawn for every i;  j = n−1−i
#pragma once

#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace mtcki {

// f32 [n,C,1,1] on the host; with `exchanged` false all ones: F' = F. rng.step numbers the draw.
Tensor draw_exchange(int64_t n, int64_t channels, bool exchanged, const Rng& rng);
// own, other [n,C,H,W]; mask on their device.
Tensor exchange_channels(const Tensor& own, const Tensor& other, const Tensor& mask);
// i64 [n], on the host: n−1, ..., 0.
Tensor partners(int64_t n);

}  // namespace mtcki
