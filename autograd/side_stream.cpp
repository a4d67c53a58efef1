#include "autograd/side_stream.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/cuda/stream_order.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

// Streams 1, 2 compute weight gradients, those from kFirstBranch on are branches.
constexpr int kWeightStreams = 2, kFirstBranch = 1 + kWeightStreams, kBranches = 8;
static_assert(kFirstBranch + kBranches <= cuda::kMostStreams);
thread_local int next = 0;           // weight stream
thread_local StreamSet running = 0;  // whom stream 0 has to wait for

StreamSet bit_of(int stream) { return StreamSet{1} << stream; }

// MTCKI_STREAMS=0: all work in one row, for the clean time of each op.
bool on_streams() {
  const char* on = std::getenv("MTCKI_STREAMS");
  return !on || std::strcmp(on, "0") != 0;
}

void start(int stream) {
  running |= bit_of(stream);
  cuda::wait_stream(stream, 0);
}

void join(StreamSet which) {
  const cuda::StreamScope zero(0);
  wait_streams(std::exchange(running, running & ~which) & which);
}

constexpr StreamSet kWeights = (StreamSet{1} << kFirstBranch) - 1;

}  // namespace

Tensor on_side_stream(Device device, const std::function<Tensor()>& compute) {
  if (device.is_cpu() || cuda::stream_index() != 0 || !on_streams()) return compute();
  const int stream = 1 + next;
  next = (next + 1) % kWeightStreams;
  join(bit_of(stream));
  start(stream);
  const cuda::StreamScope scope(stream);
  return compute();
}

void join_weight_gradients() { join(kWeights); }

void join_side_streams() {
  join_weight_gradients();
  next = 0;  // every backward does the same: a captured one finds the memory of those before
  if (cuda::stream_index() == 0) join(~StreamSet{0});
}

SideStreamScope::~SideStreamScope() {
  try {
    join_side_streams();
  } catch (const Error&) {  // of the error that is on its way, or met again by the next call
  }
}

Branches::Branches(size_t parts, Device device)
    : beside_(parts > 1 && device.is_cuda() && cuda::stream_index() == 0 && on_streams()) {}

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

BranchScope::BranchScope(int stream) : scope_(stream) {
  if (stream >= kFirstBranch && !(running & bit_of(stream))) start(stream);
}

OnStreamZero::OnStreamZero() : scope_(0) {
  if (scope_.before() != 0) cuda::wait_stream(0, scope_.before());
}

}  // namespace mtcki
