// Communicator: the processes of one job and what they do together. Data parallelism is built on it
// (autograd/parallel.h, nn/parallel.h, optim/gradient_sync.h).
//
// A job is one process, or the ranks that `mpirun` started. Host memory travels through MPI, memory
// of a GPU through NCCL on the current stream (which may be captured). On a GPU without NCCL, and
// on the emulated one unless MTCKI_EMULATE_NCCL=1 is set, it travels through the host. Every
// operation is collective: all ranks call it, in the same order, with the same shapes. Alone, each
// one returns at once.
//
// Sums add in an order that depends on the number of ranks only, and every rank receives the same
// bits, so that weights which start equal stay equal.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/tensor.h"

namespace mtcki {

class Communicator {
 public:
  // This process alone.
  static const Communicator& self();
  // All ranks that mpirun started, or self(). The first call starts MPI, which ends with the
  // process. UsageError when several were started and this build has no MPI.
  static const Communicator& world();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  // Among the ranks of this machine: which of its GPUs to use.
  int local_rank() const { return local_rank_; }
  // How many CPU cores are this rank's: those it was bound to, or an even share of those that
  // several ranks of the machine may use. Alone: 0, all.
  int cores() const { return cores_; }

  // t = sum over ranks. f32, f64, i64.
  void all_reduce_sum_(const Tensor& t) const;
  // Rows [n, ...] of every rank, in order of ranks: [size*n, ...], in the layout of `rows`.
  Tensor all_gather(const Tensor& rows) const;
  // t = t of rank `root`.
  void broadcast_(const Tensor& t, int root = 0) const;
  // Numbers on the host.
  int64_t sum(int64_t value) const;
  int64_t max(int64_t value) const;
  int64_t broadcast(int64_t value, int root = 0) const;
  void barrier() const;

 private:
  Communicator() = default;
  int rank_ = 0, size_ = 1, local_rank_ = 0, cores_ = 0;
};

// The communicator that a program's steps run over: world(), unless a scope says otherwise.
const Communicator& communicator();
class CommunicatorScope {
 public:
  explicit CommunicatorScope(const Communicator& current);
  ~CommunicatorScope();
  CommunicatorScope(const CommunicatorScope&) = delete;
  CommunicatorScope& operator=(const CommunicatorScope&) = delete;

 private:
  const Communicator* before_;
};

// Rows [begin, end) that a rank takes of `total`. UsageError, naming `what` ("train.batch_size"),
// when the ranks do not divide them evenly.
struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
RowRange rows_of_rank(int64_t total, const Communicator& comm, const char* what);

// Whether this is a rank of several that talk to each other already.
bool job_started();
// Ends the process after an error that the other ranks may not have met: in a job of several ranks
// all of them end with this exit code, instead of waiting for this one. Does nothing in a job of
// one process.
void abort_job(int exit_code);

// "Open MPI 4.1.4" or "none"; the same for NCCL.
std::string mpi_version();
std::string nccl_version();

}  // namespace mtcki
