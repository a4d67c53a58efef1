#include "autograd/side_stream.h"

#include <utility>

#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr int kBranches = 2;
thread_local std::vector<Tensor> held[kBranches];  // by the branch that runs
thread_local int next = 0;

void join_branch(int branch) {
  const std::vector<Tensor> reads = std::exchange(held[branch], {});  // also when join() fails
  if (!reads.empty()) cuda::join(1 + branch);
}

}  // namespace

Tensor on_side_stream(std::vector<Tensor> reads, const std::function<Tensor()>& compute) {
  if (reads.front().device().is_cpu() || cuda::stream_index() != 0) return compute();
  const int branch = next;
  next = (next + 1) % kBranches;
  join_branch(branch);
  held[branch] = std::move(reads);
  cuda::fork(1 + branch);
  const cuda::StreamScope scope(1 + branch);
  return compute();
}

SideStreamScope::~SideStreamScope() {
  try {
    join_side_streams();
  } catch (const Error&) {  // of the error that is on its way, or met again by the next call
  }
}

void join_side_streams() {
  for (int branch = 0; branch < kBranches; ++branch) join_branch(branch);
  next = 0;  // every backward does the same: a captured one finds the memory of those before
}

}  // namespace mtcki
