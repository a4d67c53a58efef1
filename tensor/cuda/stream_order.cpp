#include "tensor/cuda/stream_order.h"

#include <algorithm>
#include <mutex>

#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki::cuda {

namespace {

using Clock = std::array<std::atomic<uint64_t>, kMostStreams>;

struct Order {
  std::mutex mutex;  // of waits; reading needs none
  Clock now;         // of each stream, from 1
  std::array<Clock, kMostStreams> seen{};
  std::atomic<uint64_t> version{0};
  Order() {
    for (auto& time : now) time = 1;
  }
};
Order& order() {
  static auto* o = new Order;  // never destroyed: tensors of static lifetime come later
  return *o;
}
size_t at(int stream) { return static_cast<size_t>(stream); }

thread_local int current_stream = 0;

}  // namespace

int stream_index() { return current_stream; }

StreamScope::StreamScope(int index) : before_(current_stream) {
  if (index < 0 || index >= kMostStreams)
    throw Error(str("stream ", index, ": there are ", kMostStreams, ", 0 to ", kMostStreams - 1));
  current_stream = index;
}
StreamScope::~StreamScope() { current_stream = before_; }

void wait_stream(int stream, int other) {
  make_stream_wait(stream, other);
  if (stream == other) return;
  Order& o = order();
  const std::lock_guard<std::mutex> lock(o.mutex);
  Clock &learns = o.seen[at(stream)], &knows = o.seen[at(other)];
  for (size_t i = 0; i < learns.size(); ++i)
    learns[i] = std::max(learns[i].load(), knows[i].load());
  learns[at(other)] = o.now[at(other)]++;
  ++o.version;
}

uint64_t stream_order_version() { return order().version.load(std::memory_order_relaxed); }

StreamUses::StreamUses(const StreamUses& o) {
  for (size_t i = 0; i < last_.size(); ++i) last_[i] = o.last_[i].load(std::memory_order_relaxed);
}

void StreamUses::note() {
  const size_t stream = at(current_stream);
  last_[stream].store(order().now[stream].load(std::memory_order_relaxed),
                      std::memory_order_relaxed);
}

bool StreamUses::known_to(int stream) const {
  const Clock& seen = order().seen[at(stream)];
  for (int other = 0; other < kMostStreams; ++other)
    if (other != stream && last_[at(other)].load(std::memory_order_relaxed) >
                               seen[at(other)].load(std::memory_order_relaxed))
      return false;
  return true;
}

}  // namespace mtcki::cuda
