// How this process computes: one struct, read by the ops at each call. It is set before work begins
// and while nothing runs, so that a resumed run repeats every bit.
#pragma once

namespace mtcki {

// Which f32 kernels convolution, matmul and linear use on the CPU. `automatic`: the built-in
// Winograd for 3x3 at stride 1 and 2 where it wins, else oneDNN where it was found, else
// built-in. `onednn` needs a build with oneDNN: set_cpu_kernels() checks that.
enum class CpuKernels { automatic, onednn, builtin };

// Which kernels convolution uses on CUDA. `automatic`: our own for some bf16 weight gradients
// (conv_narrow_cuda.h; under autotune where they are quicker), else cuDNN, and im2col with a GEMM
// where cuDNN has no kernel (one warning names the shape) and for f64. With `cudnn` a missing
// kernel is an Error.
enum class CudaConv { automatic, cudnn, im2col };

struct MathSettings {
  // At first MTCKI_CPU_KERNELS=auto|onednn|builtin and MTCKI_CONV=auto|cudnn|im2col of the
  // environment.
  CpuKernels cpu_kernels;
  CudaConv cuda_conv;
  // Whether `automatic` and `builtin` may use Winograd, whose rounding errors are a few times those
  // of direct summation. Off: direct kernels only.
  bool winograd = true;
  // Only cuDNN kernels that repeat bit for bit; it costs next to nothing.
  bool deterministic = true;
  // Time the likely cuDNN kernels of a shape when it is first met, and keep the fastest; off: take
  // the one that cuDNN expects to be fastest. Choices go to the plan cache file
  // (tensor/cuda/conv.h).
  bool autotune = false;
};

// UsageError where the environment asks for what is unknown or not built in.
MathSettings& math_settings();
void set_cpu_kernels(CpuKernels kernels);  // UsageError for onednn when it was not built in
bool onednn_available();

}  // namespace mtcki
