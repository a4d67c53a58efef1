// An op and its kernels, one for each kind of device.
#pragma once

// MTCKI_KERNEL(relu, const Tensor& x, const Tensor& y) declares relu_cpu and relu_cuda, which take
// the same arguments.
#define MTCKI_KERNEL(kernel_, ...) \
  void kernel_##_cpu(__VA_ARGS__); \
  void kernel_##_cuda(__VA_ARGS__)

// MTCKI_ON_DEVICE(x, relu, x, y) calls relu_cuda(x, y) or relu_cpu(x, y).
#define MTCKI_ON_DEVICE(tensor_, kernel_, ...) \
  ((tensor_).device().is_cuda() ? kernel_##_cuda(__VA_ARGS__) : kernel_##_cpu(__VA_ARGS__))
