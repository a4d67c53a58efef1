#include "tensor/comm_mpi.h"

#include "tensor/error.h"

#ifdef MTCKI_WITH_MPI
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#endif

namespace mtcki::mpi {

#ifdef MTCKI_WITH_MPI

namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // counts of MPI are int

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i64:
      return MPI_INT64_T;
    default:
      throw DTypeError(str("a sum over ranks needs f32, f64 or i64, got ", name_of(dtype)));
  }
}

// f(pointer, count) for pieces of what one call may carry.
template <class F>
void in_pieces(void* data, int64_t count, size_t element, const F& f) {
  char* p = static_cast<char*>(data);
  for (; count > 0; count -= kMost, p += static_cast<size_t>(kMost) * element)
    f(p, static_cast<int>(std::min(count, kMost)));
}

}  // namespace

std::string version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<size_t>(length));
  std::string first = all.substr(0, all.find_first_of(",\n"));
  if (const size_t v = first.find(" v"); v != std::string::npos) first.erase(v + 1, 1);
  return first;
}

bool started() {
  int on = 0, off = 0;
  MPI_Initialized(&on);
  MPI_Finalized(&off);
  return on && !off;
}

Ranks start() {
  if (!started()) {
    int provided = 0;
    // Only the thread that computes communicates.
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    std::atexit([] {
      if (started()) MPI_Finalize();
    });
  }
  Ranks r;
  MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &r.size);
  MPI_Comm machine;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, r.rank, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &r.local_rank);
  cpu_set_t own, together;
  if (sched_getaffinity(0, sizeof own, &own) == 0) {
    int ranks = 1;
    MPI_Comm_size(machine, &ranks);
    MPI_Allreduce(&own, &together, sizeof own, MPI_BYTE, MPI_BOR, machine);
    r.cores = std::clamp(CPU_COUNT(&together) / ranks, 1, CPU_COUNT(&own));
  }
  MPI_Comm_free(&machine);
  return r;
}

// Reduce and broadcast, not MPI_Allreduce: some of its algorithms add in another order on every
// rank, and the sums must be the same bits everywhere.
void sum(void* data, int64_t count, DType dtype) {
  const MPI_Datatype type = type_of(dtype);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  in_pieces(data, count, size_of(dtype), [&](void* p, int n) {
    MPI_Reduce(rank == 0 ? MPI_IN_PLACE : p, p, n, type, MPI_SUM, 0, MPI_COMM_WORLD);
    MPI_Bcast(p, n, type, 0, MPI_COMM_WORLD);
  });
}

void broadcast(void* data, size_t bytes, int root) {
  in_pieces(data, static_cast<int64_t>(bytes), 1,
            [&](void* p, int n) { MPI_Bcast(p, n, MPI_BYTE, root, MPI_COMM_WORLD); });
}

void all_gather(const void* mine, void* all, size_t bytes) {
  if (static_cast<int64_t>(bytes) > kMost)
    throw Error(str("all_gather: ", bytes, " bytes per rank; at most ", kMost, " at once"));
  const int n = static_cast<int>(bytes);
  MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, MPI_COMM_WORLD);
}

void barrier() { MPI_Barrier(MPI_COMM_WORLD); }

void abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

#else

namespace {
[[noreturn]] void missing() { throw Error("this build has no MPI (MTCKI_MPI)"); }
}  // namespace

std::string version() { return {}; }
bool started() { return false; }
Ranks start() { missing(); }
void sum(void*, int64_t, DType) { missing(); }
void broadcast(void*, size_t, int) { missing(); }
void all_gather(const void*, void*, size_t) { missing(); }
void barrier() { missing(); }
void abort(int) { missing(); }

#endif

}  // namespace mtcki::mpi
