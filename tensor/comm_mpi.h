// Internal to tensor/comm: host memory between ranks. Without MPI in the build nothing was launched
// and the rest throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "tensor/dtype.h"

namespace mtcki {

// How many ranks the launcher started, by the environment: Open MPI, MPICH and its relatives, SLURM
// with PMIx; MTCKI_RANKS where none of them says it. Warns of several tasks that are no ranks.
int launched_ranks(const std::function<const char*(const char*)>& variable,
                   const std::function<void(const std::string&)>& warn);

}  // namespace mtcki

namespace mtcki::mpi {

std::string version();  // empty: not in this build
struct Ranks {
  int rank = 0, size = 1, local_rank = 0;
  int cores = 0;  // of this rank; where ranks of a machine may use the same ones, an even share
};
Ranks start();  // MPI_Init; MPI_Finalize at exit
bool started();

void sum(void* data, int64_t count, DType dtype);  // f32, f64, i64; in place
void broadcast(void* data, size_t bytes, int root);
void all_gather(const void* mine, void* all, size_t bytes);
void barrier();
[[noreturn]] void abort(int exit_code);

}  // namespace mtcki::mpi
