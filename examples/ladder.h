// What the ladders (21 to 25) share: a rung is a way to compute the same tensor, and its line says
// how long it takes, how far that is from the roof, and how far its values are from the reference.
#pragma once

#include <functional>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace ladder {

struct Rung {
  const char* name;
  std::function<mtcki::Tensor()> run;
  int threads = 1;          // CPU
  double roof = 0;          // GPU, in the unit of the rate; 0: there is no GPU
  double tolerance = 1e-5;  // of the values, over the largest one
};

// x [N,C,H,W], plain, with a pixel of zeros around it: then no kernel asks where the image ends.
inline mtcki::Tensor with_margin(const mtcki::Tensor& x) {
  const auto along = [](const mtcki::Tensor& t, int dim) {
    const mtcki::Tensor zeros = mtcki::Tensor::zeros_like(mtcki::narrow(t, dim, 0, 1));
    return mtcki::cat({zeros, t, zeros}, dim);
  };
  return along(along(x, 2), 3);
}

// How far the rung's values are from the reference, over the largest one. They are wiped out, since
// the next rung may write to the same memory: what it leaves out is seen.
inline double checked(const Rung& rung, const mtcki::Tensor& reference) {
  using namespace mtcki;
  const Tensor y = rung.run(), exact = reference.to(DType::f64).plain();
  const Tensor own = y.to(Device::cpu()).to(DType::f64).plain();
  y.fill_(0);
  return max(abs(sub(own, exact)).reshape({-1}), 0).item() /
         max(abs(exact).reshape({-1}), 0).item();
}

}  // namespace ladder
