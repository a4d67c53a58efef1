// Internal: copies of weights in the form that CUDA kernels want, made once per change of the
// weight. A copy belongs to the weight's storage and stream; it is made again, into the same
// memory, when the weight's version moved, and goes when the storage is freed.
//
// Captured steps (StepGraph) change weights without the host's knowledge, and read copies at the
// addresses of the capture. So a copy is also made again after every begin, end and launch of a
// graph, which puts the conversion of a changing weight inside the captured step. Two kinds of
// copies need none there:
//
//   of a constant weight, which the caller says never changes again (frozen teachers): one
//     conversion before the capture is enough;
//   kept copies, which the optimiser's update writes along with the weight (KeptCopies). As long as
//     nothing but such updates was captured for a weight, its version tells all that happened to
//     it. A captured step then reads the copy as it is; it is looked at before every launch, and
//     made again if the weight was changed from outside (loaded, averaged) since.
#pragma once

#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// A weight [k, c, r, s] as the memory of [k, r*s, padded] of dtype, zero in the channels beyond c:
// the weight itself where it has this form.
Tensor ohwi_weight(const Tensor& w, DType dtype, int64_t padded, bool constant);
// The same elements in another dtype, in the layout of w.
Tensor cast_weight(const Tensor& w, DType dtype, bool constant);

// For an update of weights: the copies it has to write, too.
class KeptCopies {
 public:
  // Row i of `channels` elements of the weight's memory goes to i * padded; padded 0: element for
  // element. In the weight's dtype or bf16.
  struct Copy {
    Tensor tensor;  // undefined: none
    int64_t channels = 0, padded = 0;
  };
  explicit KeptCopies(const std::vector<Tensor>& weights);
  const Copy& of(size_t weight) const { return copies_[weight]; }
  // The update was issued, and the versions of the weights moved.
  void written();

 private:
  struct Written {
    Tensor weight;
    void* entry;
    bool was_equal;
  };
  std::vector<Copy> copies_;
  std::vector<Written> written_;
};

size_t weight_copies();         // how many there are
uint64_t weight_conversions();  // how many times one was made, eagerly or into a graph

}  // namespace mtcki
