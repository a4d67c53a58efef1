#include "tensor/cuda/collectives.h"

namespace mtcki::cuda {

std::string nccl_version() { return {}; }

std::unique_ptr<Collectives> make_collectives(int, int, const std::function<void(void*, size_t)>&) {
  return nullptr;
}

}  // namespace mtcki::cuda
