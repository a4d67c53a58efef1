#include "tensor/cuda/launch.cuh"
#include "tensor/ops/keep_best_kernels.h"

namespace mtcki {

namespace {

using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class W>
__global__ void copy_if_less_kernel(const float* score, const float* best,
                                    const W* __restrict__ src, W* __restrict__ dst, int64_t n) {
  if (!(*score < *best)) return;
  MTCKI_GRID_LOOP(i, n) dst[i] = src[i];
}

__global__ void take_if_less_kernel(const float* score, float* best) {
  if (*score < *best) *best = *score;
}

template <class W>
void copy_as(const float* score, const float* best, const Tensor& src, const Tensor& dst) {
  const int64_t n = static_cast<int64_t>(dst.nbytes() / sizeof(W));
  launch(copy_if_less_kernel<W>, grid_for(n), kThreads, 0, score, best,
         static_cast<const W*>(src.raw()), static_cast<W*>(dst.raw()), n);
}

}  // namespace

// `best` is written last: every copy compares by itself.
void copy_if_less_cuda(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                       const std::vector<Tensor>& dst) {
  const float* now = score.data<float>();
  float* kept = best.data<float>();
  for (size_t i = 0; i < src.size(); ++i) {
    const auto bits = reinterpret_cast<uintptr_t>(src[i].raw()) |
                      reinterpret_cast<uintptr_t>(dst[i].raw()) | dst[i].nbytes();
    if (bits % 16 == 0) {
      copy_as<uint4>(now, kept, src[i], dst[i]);
    } else if (bits % 4 == 0) {
      copy_as<uint32_t>(now, kept, src[i], dst[i]);
    } else {
      copy_as<uint8_t>(now, kept, src[i], dst[i]);
    }
    dst[i].bump_version();
  }
  launch(take_if_less_kernel, 1, 1, 0, now, kept);
  best.bump_version();
}

}  // namespace mtcki
