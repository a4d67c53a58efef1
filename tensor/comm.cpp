#include "tensor/comm.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "tensor/comm_mpi.h"
#include "tensor/cuda/collectives.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

int launched() {
  static const int ranks = launched_ranks(
      [](const char* name) { return std::getenv(name); },
      [](const std::string& text) { std::fprintf(stderr, "warning: %s\n", text.c_str()); });
  return ranks;
}

// Null: tensors of the GPU travel through the host.
cuda::Collectives* device_collectives(int rank, int size) {
  static const std::unique_ptr<cuda::Collectives> made = cuda::make_collectives(
      rank, size, [](void* data, size_t bytes) { mpi::broadcast(data, bytes, 0); });
  return made.get();
}

const Communicator* current = nullptr;

}  // namespace

int launched_ranks(const std::function<const char*(const char*)>& variable,
                   const std::function<void(const std::string&)>& warn) {
  for (const char* name :
       {"MTCKI_RANKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"})
    if (const char* text = variable(name)) return std::atoi(text);
  const char* tasks = variable("SLURM_STEP_NUM_TASKS");
  if (!tasks || std::atoi(tasks) <= 1) return 1;
  if (variable("PMIX_RANK")) return std::atoi(tasks);  // srun --mpi=pmix
  warn(str("srun started ", tasks,
           " tasks, but not as ranks of MPI: each works alone. Use srun --mpi=pmix, or one task; "
           "MTCKI_RANKS=1 if this is meant so"));
  return 1;
}

const Communicator& Communicator::self() {
  static const Communicator alone;
  return alone;
}

const Communicator& Communicator::world() {
  static const Communicator all = [] {
    Communicator c;
    const int ranks = launched();
    if (ranks <= 1) return c;
    if (mpi::version().empty())
      throw UsageError(str("started as ", ranks,
                           " processes, but this build has no MPI; build with ",
                           "MTCKI_MPI=ON, or start one process"));
    const mpi::Ranks r = mpi::start();
    if (r.size != ranks)
      throw UsageError(str("started as ", ranks, " processes, but MPI (", mpi::version(),
                           ") knows of ", r.size,
                           "; start them with the launcher of this MPI (with srun: --mpi=pmix ",
                           "or the one that `srun --mpi=list` names for it)"));
    c.rank_ = r.rank;
    c.size_ = r.size;
    c.local_rank_ = r.local_rank;
    c.cores_ = r.cores;
    return c;
  }();
  return all;
}

void Communicator::all_reduce_sum_(const Tensor& t) const {
  if (size_ == 1 || t.numel() == 0) return;
  const ProfileScope scope("all_reduce", static_cast<double>(t.numel()), 2.0 * bytes_of(t));
  if (t.device().is_cpu()) {
    mpi::sum(t.raw(), t.numel(), t.dtype());
    t.bump_version();
  } else if (cuda::Collectives* device = device_collectives(rank_, size_)) {
    device->sum(t.raw(), t.numel(), t.dtype());
    t.bump_version();
  } else {
    cuda::forbid_while_capturing("a sum over ranks without NCCL");
    const Tensor host = t.to(Device::cpu());
    mpi::sum(host.raw(), host.numel(), host.dtype());
    t.copy_(host.to(t.device()));
  }
}

Tensor Communicator::all_gather(const Tensor& rows) const {
  if (size_ == 1) return rows;
  if (rows.rank() == 0)
    OpError("all_gather", "input", rows).shape("the input needs rank 1 or more");
  std::vector<int64_t> dims;
  for (int d = 0; d < rows.rank(); ++d) dims.push_back(rows.size(d) * (d == 0 ? size_ : 1));
  const Tensor all = Tensor::empty(Shape(dims), rows.dtype(), rows.device(), rows.layout());
  if (rows.numel() == 0) return all;
  const ProfileScope scope("all_gather", 0, bytes_of(rows, all));
  if (rows.device().is_cpu()) {
    mpi::all_gather(rows.raw(), all.raw(), rows.nbytes());
  } else if (cuda::Collectives* device = device_collectives(rank_, size_)) {
    device->all_gather(rows.raw(), all.raw(), rows.nbytes());
  } else {
    cuda::forbid_while_capturing("a gather over ranks without NCCL");
    const Tensor mine = rows.to(Device::cpu());
    const Tensor host = Tensor::empty(all.shape(), all.dtype(), Device::cpu(), mine.layout());
    mpi::all_gather(mine.raw(), host.raw(), mine.nbytes());
    all.copy_(host.to(all.device()));
  }
  return all;
}

void Communicator::broadcast_(const Tensor& t, int root) const {
  if (size_ == 1 || t.numel() == 0) return;
  const ProfileScope scope("broadcast", 0, bytes_of(t));
  if (t.device().is_cpu()) {
    mpi::broadcast(t.raw(), t.nbytes(), root);
    t.bump_version();
  } else if (cuda::Collectives* device = device_collectives(rank_, size_)) {
    device->broadcast(t.raw(), t.nbytes(), root);
    t.bump_version();
  } else {
    cuda::forbid_while_capturing("a broadcast without NCCL");
    const Tensor host = t.to(Device::cpu());
    mpi::broadcast(host.raw(), host.nbytes(), root);
    t.copy_(host.to(t.device()));
  }
}

int64_t Communicator::sum(int64_t value) const {
  if (size_ > 1) mpi::sum(&value, 1, DType::i64);
  return value;
}

int64_t Communicator::max(int64_t value) const {
  if (size_ == 1) return value;
  std::vector<int64_t> all(static_cast<size_t>(size_));
  mpi::all_gather(&value, all.data(), sizeof value);
  return *std::ranges::max_element(all);
}

int64_t Communicator::broadcast(int64_t value, int root) const {
  if (size_ > 1) mpi::broadcast(&value, sizeof value, root);
  return value;
}

void Communicator::barrier() const {
  if (size_ > 1) mpi::barrier();
}

const Communicator& communicator() { return current ? *current : Communicator::world(); }

CommunicatorScope::CommunicatorScope(const Communicator& c) : before_(current) { current = &c; }
CommunicatorScope::~CommunicatorScope() { current = before_; }

RowRange rows_of_rank(int64_t total, const Communicator& comm, const char* what) {
  if (total % comm.size() != 0)
    throw UsageError(str(what, " is ", total, ", which ", comm.size(),
                         " ranks do not divide evenly; change it or the number of ranks"));
  const int64_t share = total / comm.size();
  return {comm.rank() * share, (comm.rank() + 1) * share};
}

bool job_started() { return launched() > 1 && mpi::started(); }

void abort_job(int exit_code) {
  if (job_started()) mpi::abort(exit_code);
}

std::string mpi_version() {
  const std::string v = mpi::version();
  return v.empty() ? "none" : v;
}

std::string nccl_version() {
  const std::string v = cuda::nccl_version();
  return v.empty() ? "none" : v;
}

}  // namespace mtcki
