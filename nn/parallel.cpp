#include "nn/parallel.h"

#include "nn/layers.h"

namespace mtcki::nn {

void make_parallel(Module& net, const Communicator& comm) {
  for (auto& [name, module] : net.named_modules())
    if (auto* bn = dynamic_cast<BatchNorm2d*>(module)) bn->set_communicator(comm);
  for (auto& [name, p] : net.named_parameters()) comm.broadcast_(p->data());
  for (auto& [name, b] : net.named_buffers()) comm.broadcast_(*b);
}

}  // namespace mtcki::nn
