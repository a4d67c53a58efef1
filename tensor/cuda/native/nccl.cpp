#include "tensor/cuda/collectives.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

#ifdef MTCKI_WITH_NCCL
#include <nccl.h>
#endif

namespace mtcki::cuda {

#ifdef MTCKI_WITH_NCCL

namespace {

void check(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return;
  const char* more = ncclGetLastError(nullptr);
  throw Error(str(what, ": ", ncclGetErrorString(result), more && *more ? str(" (", more, ")") : "",
                  "; NCCL_DEBUG=INFO says more"));
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::i64:
      return ncclInt64;
    default:
      throw DTypeError(str("a sum over ranks needs f32, f64 or i64, got ", name_of(dtype)));
  }
}

cudaStream_t now() { return static_cast<cudaStream_t>(stream()); }

// The communicator lives as long as the process: destroying it is collective, and a rank that ends
// by an error cannot take part.
class Nccl : public Collectives {
 public:
  Nccl(int rank, int size, const ncclUniqueId& id) {
    check(ncclCommInitRank(&comm_, size, id, rank), "ncclCommInitRank");
  }
  void sum(void* data, int64_t count, DType dtype) override {
    check(ncclAllReduce(data, data, static_cast<size_t>(count), type_of(dtype), ncclSum, comm_,
                        now()),
          "ncclAllReduce");
  }
  void broadcast(void* data, size_t bytes, int root) override {
    check(ncclBroadcast(data, data, bytes, ncclUint8, root, comm_, now()), "ncclBroadcast");
  }
  void all_gather(const void* mine, void* all, size_t bytes) override {
    check(ncclAllGather(mine, all, bytes, ncclUint8, comm_, now()), "ncclAllGather");
  }

 private:
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::string nccl_version() {
  int v = 0;
  if (ncclGetVersion(&v) != ncclSuccess) return {};
  return str(v / 10000, ".", v % 10000 / 100, ".", v % 100);
}

std::unique_ptr<Collectives> make_collectives(
    int rank, int size, const std::function<void(void* data, size_t bytes)>& share) {
  stream();  // chooses the GPU and makes it current
  ncclUniqueId id{};
  if (rank == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  share(&id, sizeof id);
  return std::make_unique<Nccl>(rank, size, id);
}

#else

std::string nccl_version() { return {}; }

std::unique_ptr<Collectives> make_collectives(int, int, const std::function<void(void*, size_t)>&) {
  return nullptr;
}

#endif

}  // namespace mtcki::cuda
