// Gradients inside a graph, for losses that are made of them.
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace mtcki {

// d(of)/d(each of `at`), started from `seed`; `at` are results of recorded ops. Unlike backward() it
// leaves every .grad() as it is, makes no gradient of a leaf, and keeps the graph (PyTorch's
// autograd.grad). GradientError where `of` does not depend on one of them.
std::vector<Tensor> gradients(const Variable& of, const std::vector<Variable>& at,
                              const Tensor& seed);

}  // namespace mtcki
