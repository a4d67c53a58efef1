#include "tensor/cuda/clocks.h"

namespace mtcki::cuda {

Clocks read_clocks(int) { return {}; }

}  // namespace mtcki::cuda
