// Internal to the emulated device: the queues of its streams, and captured graphs of them.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "tensor/cuda/stream_order.h"
#include "tests/emulated/device/device.h"

namespace mtcki::cuda {

using Work = std::shared_ptr<const std::function<void()>>;

// An entry of a queue: work, or (null) the wait until `other` has done `position` entries.
struct QueueEntry {
  Work work;
  int other = 0;
  size_t position = 0;
};

class Queues {
 public:
  void add(int stream, QueueEntry entry);
  size_t given(int stream) const;
  // Until the stream has done so many entries; all: all of them have done everything.
  void finish(int stream, size_t position, StreamTimes times);
  void finish_all(StreamTimes times);

 private:
  struct Queue {
    std::deque<QueueEntry> entries;
    size_t done = 0;
  };
  Queue& at(int stream) { return queues_[static_cast<size_t>(stream)]; }
  bool step(int stream, bool may_finish_others);
  void run_side_streams(bool first_one_first);
  std::array<Queue, kMostStreams> queues_;
};

// What a capture wrote down. Streams other than that of begin() take part once they wait for one that
// does, and must be waited for again, as on a GPU.
class Recording {
 public:
  explicit Recording(int stream);
  void add(int stream, Work work);
  void wait(int stream, int other);
  void check_joined() const;
  void replay(StreamTimes times) const;
  size_t works() const;

 private:
  struct Given {
    int stream;
    QueueEntry entry;
  };
  void give(int stream, QueueEntry entry);
  bool takes_part(int stream) const { return takes_part_[static_cast<size_t>(stream)]; }
  int origin_;
  std::vector<Given> given_;
  std::array<size_t, kMostStreams> count_{};
  std::array<bool, kMostStreams> takes_part_{};
};

}  // namespace mtcki::cuda
