// Internal to the emulated device: its memory, and what its streams are given.
#pragma once

#include <functional>

namespace mtcki::cuda {

// Device memory is out of the host's reach (PROT_NONE) except while one of these lives: a host
// function that reads a device pointer ends in a segmentation fault, as it would with a GPU.
// Under AddressSanitizer every block is a heap block instead, so that kernels are bounds-checked.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Gives the current stream this work, or appends it to the graph that is being captured.
// name: null for what leaves no record (activity.h).
void issue(std::function<void()> work, const char* name = "kernel", bool copy = false);

// The same work, which leaves a record of itself when it runs, if records are taken now; a launch of
// a graph one of the call.
std::function<void()> with_record(std::function<void()> work, const char* name, bool copy);
std::function<void()> with_record_of_launch(std::function<void()> replay);

// When a stream does its work (MTCKI_EMULATE_STREAMS=NAME; late if not said). A device may do it at
// any time that the waits allow; these show what the waits leave open:
//   late            stream 0 at once, others when somebody waits for them: a join that is missing,
//                   memory handed out too early
//   early           stream 0 when the host waits, others as soon as their own waits allow, the last
//                   one first: a fork that is missing, pinned memory written too early
//   early_reversed  the first one first
enum class StreamTimes { late, early, early_reversed };
void set_stream_times(StreamTimes times);

}  // namespace mtcki::cuda
