// Marks functions that run on the CPU and inside CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define MTCKI_HD __host__ __device__
#else
#define MTCKI_HD
#endif
