// The gradients of a data-parallel step, summed over ranks after the backward.
#pragma once

#include <vector>

#include "autograd/variable.h"
#include "tensor/comm.h"

namespace mtcki::optim {

// grad = sum of grad over ranks, for every parameter that has one (the same ones on every rank).
// Gradients travel in flat buffers of up to bucket_bytes: few large messages instead of many small
// ones. Does nothing with one rank.
void all_reduce_gradients(const std::vector<Variable>& parameters, const Communicator& comm,
                          size_t bucket_bytes = size_t{32} << 20);

}  // namespace mtcki::optim
