// Exercise 5: a layer of one's own, layer normalisation (docs/course/05_layers.md).
#include "course/course.h"

namespace mtcki::course {

namespace {

class LayerNorm : public nn::Module {
 public:
  LayerNorm(int64_t features, DType dtype)
      : weight(register_parameter("weight", Tensor::full({features}, 1.0, dtype))),
        bias(register_parameter("bias", Tensor::zeros({features}, dtype))) {}
  Variable &weight, &bias;

 protected:
  // Only functions of autograd/functions.h on Variables: then the engine knows the gradient.
  Variable forward(const Variable& x) override {
    hole("LayerNorm::forward: mean(x, {1}, true), the mean square of x - mean, and so on");
  }
};

}  // namespace

std::unique_ptr<nn::Module> make_layer_norm(int64_t features, DType dtype) {
  return std::make_unique<LayerNorm>(features, dtype);
}

}  // namespace mtcki::course
