// Where and how the steps of a stage run.
#pragma once

#include <cstdint>
#include <string>

#include "nn/precision.h"
#include "tensor/device.h"

namespace mtcki {

struct Compute {
  Device device;
  nn::Precision precision = nn::Precision::f32;  // of networks
  bool recompute = false;                        // Module::set_recompute of what is trained
  bool graph = false;      // steps are captured and repeated (StepGraph); GPU only
  int64_t read_every = 1;  // steps whose losses are read from the device together

  Compute at(Device other) const {
    Compute c = *this;
    c.device = other;
    return c;
  }
};

// Every rank of a job has a GPU of its own: "cuda" and "auto" become "cuda:N" for the N-th rank of
// a machine. Before the first use of a GPU. Alone, or with an index given, text is what it was.
std::string device_of_rank(const std::string& text);
// Which of the GPUs that the process sees belongs to a rank: often it sees its own one only.
int gpu_of_rank(int local_rank, int devices);

// CPU threads for set_num_threads: as many as asked for; where 0 leaves it open, the ranks of a
// machine share its cores (OMP_NUM_THREADS comes first). Alone, 0 stays 0.
int threads_of_rank(int64_t asked);

struct RunConfig;
// What the keys of a run ask for; "auto" is settled here. DeviceError when the device cannot be
// used.
Compute compute_of(const RunConfig& config);

}  // namespace mtcki
