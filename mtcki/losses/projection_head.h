// What contrast losses share: the small network that projects features, and where positives are.
#pragma once

#include <map>
#include <memory>

#include "nn/chain.h"

namespace mtcki {

// Linear(in, in) − ReLU − Linear(in, out), children "0", "1", "2".
std::unique_ptr<nn::Sequential> projection_head(int64_t in, int64_t out, nn::Init& init);
// 0, 1, ..., n-1 (i64): the positive of row i is column i.
Tensor diagonal_positives(int64_t n, Device device = {});
// The same, made once per n: a captured step cannot copy from the host.
class DiagonalPositives {
 public:
  explicit DiagonalPositives(Device device) : device_(device) {}
  const Tensor& of(int64_t n);

 private:
  Device device_;
  std::map<int64_t, Tensor> made_;
};

}  // namespace mtcki
