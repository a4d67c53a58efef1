// A network whose batch is spread over the ranks of a job.
#pragma once

#include "nn/module.h"
#include "tensor/comm.h"

namespace mtcki::nn {

// Gives every rank rank 0's parameters and buffers, and lets the batch norms of `net` take their
// statistics over the rows of all ranks from now on. comm must outlive the network.
void make_parallel(Module& net, const Communicator& comm);

}  // namespace mtcki::nn
