// Solution 10: what a batch norm remembers of its data (docs/course/10_inversion.md).
#include "course/course.h"

namespace mtcki::course {

Variable statistics_loss(const std::vector<Variable>& inputs,
                         const std::vector<nn::BatchNorm2d*>& norms) {
  Variable total = Variable(Tensor::scalar(0));
  for (size_t l = 0; l < inputs.size(); ++l) {
    const Variable& x = inputs[l];  // [N,C,H,W]
    const Tensor wanted_mean = norms[l]->running_mean, wanted_variance = norms[l]->running_var;
    const Variable centre = mean(x, {0, 2, 3}, /*keepdim=*/true);  // [1,C,1,1]
    const Variable variance = mean(square(x - centre), {0, 2, 3});
    total = total + norm(reshape(centre, wanted_mean.shape()) - wanted_mean) +
            norm(variance - wanted_variance);
  }
  return total;
}

}  // namespace mtcki::course
