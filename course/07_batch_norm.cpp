// Exercise 7: the backward of batch norm (docs/course/07_batch_norm.md).
#include "autograd/recorder.h"
#include "course/course.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki::course {

Variable batch_norm(const Variable& x, const Variable& gamma, const Variable& beta, double eps) {
  // From here on Tensors: the recorder keeps what the backward needs, not the engine.
  const Tensor centred = sub(x.data(), mean(x.data(), {0}));
  const Tensor variance = mean(square(centred), {0});  // biased
  const Tensor deviation = sqrt(add(variance, eps));   // [C]
  const Tensor normal = div(centred, deviation);       // x̂ [N,C]
  const Tensor y = add(mul(normal, gamma.data()), beta.data());

  Recorder r("course_batch_norm", {x, gamma, beta});
  // One closure gives all three gradients: of x [N,C], gamma [C] and beta [C], from gy [N,C].
  r.grad({0, 1, 2},
         [normal = r.save(normal), deviation = r.save(deviation),
          gamma = r.save(gamma.data())](const Tensor& gy) -> std::vector<Tensor> {
           hole("batch_norm: the gradients of x, gamma and beta");
         });
  return r.finish(y);
}

}  // namespace mtcki::course
