// A number that an op takes: known now, or a value on the device that is read when the kernel runs.
// The second form is what lets a captured step (StepGraph) be repeated with other learning rates.
#pragma once

#include "tensor/host_device.h"
#include "tensor/op_error.h"
#include "tensor/tensor.h"

namespace mtcki {

// What a kernel gets.
struct ScalarArgument {
  float value = 0;
  const float* data = nullptr;
  MTCKI_HD float get() const { return data ? *data : value; }
};

class Scalar {
 public:
  Scalar(double value = 0) : value_(value) {}  // NOLINT: numbers are scalars
  // One f32 element.
  explicit Scalar(const Tensor& tensor) : tensor_(tensor) {
    if (tensor.dtype() != DType::f32 || tensor.numel() != 1)
      OpError("Scalar", "value", tensor).dtype("a scalar tensor is one f32 element");
  }
  bool on_device() const { return tensor_.defined() && tensor_.device().is_cuda(); }
  // Waits for the device, so not inside a captured step.
  double value() const { return tensor_.defined() ? tensor_.item() : value_; }
  ScalarArgument argument() const {
    return on_device() ? ScalarArgument{0, tensor_.data<float>()}
                       : ScalarArgument{static_cast<float>(value()), nullptr};
  }

 private:
  double value_ = 0;
  Tensor tensor_;
};

}  // namespace mtcki
