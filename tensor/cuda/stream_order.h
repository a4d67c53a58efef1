// What the streams know of each other. A stream that waits for another one knows, from then on, of
// everything that one holds or knows itself. Each storage on a GPU remembers the last use of its
// bytes on each stream (StreamUses, noted whenever a pointer to them is asked for), so that two
// questions have an answer without asking the device:
//
//   may a freed block be handed out again?     its own stream must know of every use
//   may a tensor be written in place?          the current stream must know of every use
//
// A time is a count of the waits for a stream; a vector clock holds what a stream knows.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace mtcki::cuda {

constexpr int kMostStreams = 16;

class StreamUses {
 public:
  StreamUses() = default;
  StreamUses(const StreamUses& o);
  StreamUses& operator=(const StreamUses&) = delete;

  // Work that the current stream is given next touches the bytes.
  void note();
  // Whether all work on other streams that touches them comes before what `stream` is given next.
  bool known_to(int stream) const;

 private:
  std::array<std::atomic<uint64_t>, kMostStreams> last_{};
};

// Moves with every wait of a stream for another one: until then no stream learns anything.
uint64_t stream_order_version();

// For the backends: the device's part of wait_stream().
void make_stream_wait(int stream, int other);

}  // namespace mtcki::cuda
