// An op of one's own on the GPU: the sum of squares of each row, with its gradient. One block per
// row: its threads add up what they pass on their way, then halve in shared memory. The order of
// additions is fixed, so the result repeats bit for bit. Without a GPU this file is compiled for the
// emulated one (MTCKI_EMULATE_CUDA=1), where every CUDA thread is a coroutine.
//
// Expect: values agree: yes, gradient agrees: yes, repeats bit for bit: yes
#include <cstdio>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

constexpr int kBlock = 128;

// y[row] = sum of x[row, :]²; x [gridDim.x, columns].
__global__ void row_squares_kernel(const float* x, float* y, int64_t columns) {
  __shared__ float part[kBlock];
  const int t = static_cast<int>(threadIdx.x);
  const float* row = x + blockIdx.x * columns;
  float sum = 0;
  for (int64_t i = t; i < columns; i += kBlock) sum += row[i] * row[i];
  part[t] = sum;
  __syncthreads();
  for (int half = kBlock / 2; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    __syncthreads();  // outside of the condition: every thread has to come here
  }
  if (t == 0) y[blockIdx.x] = part[0];
}

// dx[row, i] = 2 x[row, i] gy[row]
__global__ void row_squares_grad_kernel(const float* gy, const float* x, float* dx, int64_t n,
                                        int64_t columns) {
  MTCKI_GRID_LOOP(i, n) dx[i] = 2 * x[i] * gy[i / columns];
}

Tensor row_squares_values(const Tensor& x) {
  const Tensor y = Tensor::empty({x.size(0)}, DType::f32, x.device());
  cuda::launch(row_squares_kernel, dim3(static_cast<unsigned>(x.size(0))), dim3(kBlock), 0,
               x.data<float>(), y.data<float>(), x.size(1));
  return y;
}

Variable row_squares(const Variable& x) {
  Recorder r("row_squares", {x});
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data())](const Tensor& gy) {
      const Tensor dx = Tensor::empty_like(x.get());
      const int64_t n = dx.numel();
      cuda::launch(row_squares_grad_kernel, cuda::grid_for(n), dim3(cuda::kThreads), 0,
                   gy.data<float>(), x.get().data<float>(), dx.data<float>(), n, dx.size(1));
      return dx;
    });
  return r.finish(row_squares_values(x.data()));
}

}  // namespace

int main() {
  if (!cuda::availability().usable) {
    std::printf("skipped: %s\n", cuda::availability().why.c_str());
    return 0;
  }
  cuda::use_device(0);
  const Tensor host = randn({37, 1000}, Rng{20, rng_stream("x"), 0});
  const Tensor weights = randn({37}, Rng{20, rng_stream("gy"), 0});

  const Variable x(host.to(Device::cuda(0)), true);
  const Variable y = row_squares(x);
  y.backward(weights.to(Device::cuda(0)));

  // The same from functions that are there, on the CPU.
  const Variable cpu(host, true);
  const Variable known = sum(square(cpu), {1});
  known.backward(weights);

  const auto yes = [](bool right) { return right ? "yes" : "no"; };
  const bool values = allclose(y.data().to(Device::cpu()), known.data(), 1e-5, 1e-5);
  const bool gradient = allclose(x.grad().to(Device::cpu()), cpu.grad(), 1e-5, 1e-5);
  const bool repeats = identical(row_squares_values(x.data()).to(Device::cpu()),
                                 row_squares_values(x.data()).to(Device::cpu()));
  std::printf("37 rows of 1000 elements, %d threads per row\n", kBlock);
  std::printf("values agree: %s, gradient agrees: %s, repeats bit for bit: %s\n", yes(values),
              yes(gradient), yes(repeats));
  return values && gradient && repeats ? 0 : 1;
}
