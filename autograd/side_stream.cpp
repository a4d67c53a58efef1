#include "autograd/side_stream.h"

#include <utility>

#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

// Streams 1, 2 compute weight gradients, those from kFirstBranch on are branches.
constexpr int kWeightStreams = 2, kFirstBranch = 1 + kWeightStreams, kBranches = 8;
thread_local std::vector<Tensor> held[kWeightStreams];  // by the one that runs
thread_local int next = 0;
thread_local StreamSet running = 0;  // branches

void join_weight_stream(int index) {
  const std::vector<Tensor> reads = std::exchange(held[index], {});  // also when waiting fails
  if (!reads.empty()) cuda::wait_stream(0, 1 + index);
}

void start_branch(int stream) {
  const StreamSet bit = StreamSet{1} << stream;
  if (stream < kFirstBranch || (running & bit)) return;
  if (running == 0) hold_foreign_blocks(true);
  running |= bit;
  cuda::wait_stream(stream, 0);
}

void join_branches() {
  if (running == 0) return;
  const StreamSet all = std::exchange(running, 0);
  hold_foreign_blocks(false);
  for (int stream = kFirstBranch; stream < kFirstBranch + kBranches; ++stream)
    if (all >> stream & 1) cuda::wait_stream(0, stream);
}

}  // namespace

Tensor on_side_stream(std::vector<Tensor> reads, const std::function<Tensor()>& compute) {
  if (reads.front().device().is_cpu() || cuda::stream_index() != 0) return compute();
  const int index = next;
  next = (next + 1) % kWeightStreams;
  join_weight_stream(index);
  held[index] = std::move(reads);
  cuda::wait_stream(1 + index, 0);
  const cuda::StreamScope scope(1 + index);
  return compute();
}

void join_weight_gradients() {
  for (int index = 0; index < kWeightStreams; ++index) join_weight_stream(index);
}

void join_side_streams() {
  join_weight_gradients();
  next = 0;  // every backward does the same: a captured one finds the memory of those before
  join_branches();
}

SideStreamScope::~SideStreamScope() {
  try {
    join_side_streams();
  } catch (const Error&) {  // of the error that is on its way, or met again by the next call
  }
}

Branches::Branches(size_t parts, Device device)
    : beside_(parts > 1 && device.is_cuda() && cuda::stream_index() == 0) {}

void Branches::run(const std::function<void()>& part) {
  if (!beside_) return part();
  const BranchScope scope(kFirstBranch + next_++ % kBranches);
  part();
}

void wait_streams(StreamSet set) {
  const int current = cuda::stream_index();
  for (int stream = 0; set >> stream != 0; ++stream)
    if ((set >> stream & 1) && stream != current) cuda::wait_stream(current, stream);
}

BranchScope::BranchScope(int stream) : scope_(stream) { start_branch(stream); }

OnStreamZero::OnStreamZero() : scope_(0) {
  if (scope_.before() != 0) cuda::wait_stream(0, scope_.before());
}

}  // namespace mtcki
