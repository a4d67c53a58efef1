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

// One event per execution of a scope that ran kernels: its time is the sum of theirs, its note
// names them. The n-th replay of a captured scope counts as step n. Kernels, copies and fills of no
// scope are events of their own, named after themselves, of no step (kAnyStep). Times begin with the
// first record.
std::vector<Event> attribute(const std::vector<Event>& scopes,
                             const std::vector<cuda::Activity>& records);

// "void ns::kernel<float, 3>(float*)" or its mangled form -> "ns::kernel"
std::string short_kernel_name(const std::string& name);

}  // namespace mtcki::profiler
