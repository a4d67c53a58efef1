// Work beside stream 0, on a GPU; on the CPU everything here happens at once. Captured steps become
// graphs with branches. The bits are those of one after the other.
//
// Weight gradients: nothing in a backward waits for the gradient of a weight, so it is computed on
// a side stream, while the input gradient and the memory-bound ops of the layers below run on
// stream 0. Two side streams take turns. The memory of what one reads is handed out again when stream
// 0 has waited for it, which happens when its stream is needed again, so at most two layers'
// gradients live longer.
//
// Branches: parts of a step that do not depend on each other, such as teachers that are asked about
// the same images. The small kernels of one run beside those of another. What a part records goes
// back on its stream (Node::stream); the engine orders streams where gradients cross.
#pragma once

#include <cstdint>
#include <functional>

#include "tensor/cuda/runtime.h"
#include "tensor/tensor.h"

namespace mtcki {

// compute() on a side stream, where the device is a GPU and stream 0 current; else at once. It reads
// what was made on stream 0. The result must not be used before join_weight_gradients().
Tensor on_side_stream(Device device, const std::function<Tensor()>& compute);
// Stream 0 waits for this thread's weight gradients; for them and its branches, which end here.
// Cheap when there are none. Within a branch the branches are left alone: the outer parts go on.
void join_weight_gradients();
void join_side_streams();

// Around work on side streams, which joins them at its end: none stays behind after an error.
class SideStreamScope {
 public:
  SideStreamScope() = default;
  ~SideStreamScope();
  SideStreamScope(const SideStreamScope&) = delete;
  SideStreamScope& operator=(const SideStreamScope&) = delete;
};

// Branches branches(3, device);
// for (...) branches.run([&] { ... });
// branches.join();  // before anything uses what the parts made
class Branches {
 public:
  // With a single part, or within a branch, parts run on the current stream.
  Branches(size_t parts, Device device);
  void run(const std::function<void()>& part);
  void join() { join_side_streams(); }

 private:
  bool beside_;
  int next_ = 0;
  SideStreamScope joined_;
};

// For the engine. A set of streams: bit i for stream i.
using StreamSet = uint32_t;
inline StreamSet current_stream_bit() { return StreamSet{1} << cuda::stream_index(); }
// The current stream waits for those of the set.
void wait_streams(StreamSet set);
// On that stream, which starts behind stream 0 when it is not running yet.
class BranchScope {
 public:
  explicit BranchScope(int stream);

 private:
  cuda::StreamScope scope_;
};
// On stream 0, behind the current one.
class OnStreamZero {
 public:
  OnStreamZero();

 private:
  cuda::StreamScope scope_;
};

}  // namespace mtcki
