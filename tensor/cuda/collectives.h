// Collectives between the GPUs of several processes, on the current stream of each; they may be
// captured. native/nccl.cpp: NCCL, where the build has it. The emulated device has none: what has
// to travel goes through the host (tensor/comm.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tensor/dtype.h"

namespace mtcki::cuda {

std::string nccl_version();  // empty: none

class Collectives {
 public:
  virtual ~Collectives() = default;
  virtual void sum(void* data, int64_t count, DType dtype) = 0;  // in place; f32, f64, i64
  virtual void broadcast(void* data, size_t bytes, int root) = 0;
  virtual void all_gather(const void* mine, void* all, size_t bytes) = 0;
};
// Between this process's GPU and those of the others; collective. share(data, bytes) replaces data
// by rank 0's. Null where there are none.
std::unique_ptr<Collectives> make_collectives(
    int rank, int size, const std::function<void(void* data, size_t bytes)>& share);

}  // namespace mtcki::cuda
