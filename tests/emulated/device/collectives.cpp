#include "tensor/cuda/collectives.h"

#include <cstdlib>

#include "tensor/comm_mpi.h"
#include "tensor/cuda/runtime.h"
#include "tests/emulated/device/device.h"

namespace mtcki::cuda {

namespace {

// MPI as work of a stream, which may be captured and runs as late as other work of a side stream:
// what a program may expect of NCCL.
class MpiCollectives : public Collectives {
 public:
  void sum(void* data, int64_t count, DType dtype) override {
    issue([=] {
      const DeviceAccess access;
      mpi::sum(data, count, dtype);
    });
  }
  void broadcast(void* data, size_t bytes, int root) override {
    issue([=] {
      const DeviceAccess access;
      mpi::broadcast(data, bytes, root);
    });
  }
  void all_gather(const void* mine, void* all, size_t bytes) override {
    issue([=] {
      const DeviceAccess access;
      mpi::all_gather(mine, all, bytes);
    });
  }
};

}  // namespace

// Off unless asked for, so that the way through the host is tested too.
std::string nccl_version() {
  const char* on = std::getenv("MTCKI_EMULATE_NCCL");
  return on && *on && *on != '0' && !mpi::version().empty() ? "emulated" : "";
}

std::unique_ptr<Collectives> make_collectives(int, int size,
                                              const std::function<void(void*, size_t)>&) {
  if (size == 1 || nccl_version().empty()) return nullptr;
  return std::make_unique<MpiCollectives>();
}

}  // namespace mtcki::cuda
