#include "tensor/cuda/launch.cuh"
#include "tensor/rng_kernels.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class T, class Pair>
__global__ void pairs_kernel(T* __restrict__ y, int64_t n, Rng rng, Pair pair) {
  MTCKI_GRID_LOOP(i, (n + 1) / 2) {
    const RandomPair p =
        pair(random_words(rng.seed, rng.stream, rng.step, static_cast<uint64_t>(i)));
    y[2 * i] = T(static_cast<compute_t<T>>(p.a));
    if (2 * i + 1 < n) y[2 * i + 1] = T(static_cast<compute_t<T>>(p.b));
  }
}

__global__ void randint_kernel(int64_t* __restrict__ y, int64_t n, int64_t low, uint64_t range,
                               Rng rng) {
  MTCKI_GRID_LOOP(i, n) {
    const PhiloxWords w = random_words(rng.seed, rng.stream, rng.step, static_cast<uint64_t>(i));
    y[i] = low + static_cast<int64_t>(below_of(w, range));
  }
}

template <class T, class Pair>
void fill(const Rng& rng, const Tensor& y, Pair pair) {
  const int64_t n = y.numel();
  launch(pairs_kernel<T, Pair>, grid_for((n + 1) / 2), kThreads, 0, y.data<T>(), n, rng, pair);
}

}  // namespace

void rand_cuda(const Rng& rng, const Tensor& y) {
  if (y.dtype() == DType::f64) return fill<double>(rng, y, Uniform53());
  MTCKI_DISPATCH_CUDA(y.dtype(), "rand", T, { fill<T>(rng, y, Uniform24()); });
}

void randn_cuda(const Rng& rng, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(y.dtype(), "randn", T, { fill<T>(rng, y, BoxMuller()); });
}

void randint_cuda(int64_t low, uint64_t range, const Rng& rng, const Tensor& y) {
  launch(randint_kernel, grid_for(y.numel()), kThreads, 0, y.data<int64_t>(), y.numel(), low, range,
         rng);
}

}  // namespace mtcki
