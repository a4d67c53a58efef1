#include "tensor/kernels/rows.cuh"
#include "tensor/ops/softmax_kernels.h"

#define MTCKI_ROWS_NAME(kernel) kernel##_cuda
#define MTCKI_ROWS_DISPATCH MTCKI_DISPATCH_CUDA

namespace mtcki {
namespace {
using cuda::compute_t;
using cuda::for_rows;
}  // namespace
}  // namespace mtcki

#include "tensor/ops/softmax_rows.h"
