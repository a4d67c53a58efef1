#include "mtcki/training/compute.h"

#include <cstdio>
#include <cstdlib>

#include "mtcki/config/config.h"
#include "tensor/comm.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

std::string device_of_rank(const std::string& text) {
  const Communicator& comm = communicator();
  const bool open = text == "cuda" || (text == "auto" && cuda::availability().usable);
  if (!open || comm.size() == 1 || cuda::is_emulated()) return text;
  const int devices = cuda::availability().devices, local = comm.local_rank();
  // Schedulers often show each rank its own GPU only, which then is cuda:0 for all of them.
  if (devices > 1 && local == devices)
    std::fprintf(stderr, "warning: more ranks than the %d GPUs of this machine: some share one\n",
                 devices);
  return str("cuda:", gpu_of_rank(local, devices));
}
int gpu_of_rank(int local_rank, int devices) { return devices > 0 ? local_rank % devices : 0; }

int threads_of_rank(int64_t asked) {
  if (asked > 0 || std::getenv("OMP_NUM_THREADS")) return static_cast<int>(asked);
  return communicator().cores();
}

Compute compute_of(const RunConfig& config) {
  Compute c{.device = parse_device(config.device),
            .precision = nn::parse_precision(config.precision),
            .recompute = config.recompute};
  c.graph = config.graph == "on" || (config.graph == "auto" && c.device.is_cuda());
  // What travels through the host cannot be captured.
  if (c.device.is_cuda() && communicator().size() > 1 && nccl_version() == "none") {
    if (config.graph == "on")
      throw UsageError(
          "graph is \"on\", but steps of several ranks are captured with NCCL only, "
          "which this build lacks; leave it at \"auto\", or build with MTCKI_NCCL=ON");
    c.graph = false;
  }
  if (c.device.is_cuda()) c.read_every = config.read_every > 0 ? config.read_every : 25;
  return c;
}

}  // namespace mtcki
