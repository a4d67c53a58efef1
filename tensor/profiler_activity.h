// Which op a kernel belongs to. Kernel records (tensor/cuda/activity.h) carry the id of the API
// call that launched them, or of the graph node they ran as; records of those calls and nodes carry
// the id of the profiler scope around them. So kernels of a replayed graph are found too: they
// belong to the scope that was open when the node was captured.
#pragma once

#include <string>
#include <vector>

#include "tensor/cuda/activity.h"
#include "tensor/profiler.h"

namespace mtcki::profiler {

// Records kernels from now on (also of graphs that are captured from now on), besides what start()
// records. Empty, or why that is not possible.
std::string start_kernels();
void clear_kernels();  // forgets what ran, keeps which scope made which graph node
std::vector<cuda::Activity> stop_kernels();
double host_now_us();  // since profiler::start(), on the clock of Event::host_start_us

// One event per execution of a scope that ran kernels: it lasts from the first to the last of them,
// its self_us is the sum of theirs, its note names them. The n-th replay of a captured scope counts
// as step n. Kernels, copies and fills of no scope are events of their own, named after themselves,
// of no step (kAnyStep). Times are on the host's clock where stop_kernels() compared the two; else
// they begin with the first record.
//
// shares: of each event, may be null. Of time in which several run (side streams, kernels that start
// early and wait) each has an equal part: these add up to the time in which anything ran.
struct Share {
  double exclusive_us = 0;
  int launches = 0;  // kernels, copies and fills
};
std::vector<Event> attribute(const std::vector<Event>& scopes,
                             const std::vector<cuda::Activity>& records,
                             std::vector<Share>* shares = nullptr);

// A bar of a timeline. Those of one stream and lane are apart or nested: what overlaps is in the
// next lane.
struct Slice {
  enum class Kind {
    op,    // an execution of a scope on one stream, around its work
    work,  // a kernel, copy or fill
    call,  // the API call on the host that started work
  };
  Kind kind = Kind::work;
  std::string name, shape;  // of the op, kernel or call; grid, block, registers, shared memory
  std::string module;
  bool backward = false;
  int stream = 0, lane = 0;
  double start_us = 0, us = 0;
  uint32_t launch = 0;  // of a call, and of the first work that it started; 0: none
};
std::vector<Slice> timeline(const std::vector<Event>& scopes,
                            const std::vector<cuda::Activity>& records);

// "void ns::kernel<float, 3>(float*)" or its mangled form -> "ns::kernel"
std::string short_kernel_name(const std::string& name);

}  // namespace mtcki::profiler
