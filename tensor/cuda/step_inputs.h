// StepInputs: what the host hands to a step. On the GPU each input is a tensor at a fixed address,
// refilled through pinned memory without waiting; on the CPU it is the host's own tensor.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>

#include "tensor/cuda/runtime.h"
#include "tensor/tensor.h"

namespace mtcki {

class StepInputs {
 public:
  explicit StepInputs(Device device = {}) : device_(device) {}

  Device device() const { return device_; }
  // The input called name with these values from now on. On the GPU it is the same tensor as long
  // as shape and dtype are. Not inside a captured step (use host_work). Undefined stays undefined.
  Tensor set(const std::string& name, const Tensor& host);
  Tensor set(const std::string& name, double value);  // f32, shape []
  // The tensor that set() fills, without filling it: GPU only.
  Tensor at(const std::string& name, const Shape& shape, DType dtype);

 private:
  // So many refills may be under way; the next one waits for the oldest.
  static constexpr size_t kSlots = 8;
  struct Slot {
    ~Slot();
    void* pinned = nullptr;
    cuda::Event copied;
    bool used = false;
  };
  struct Buffer {
    Tensor tensor;
    std::array<Slot, kSlots> slots;
    size_t next = 0;
  };
  Buffer& buffer(const std::string& name, const Shape& shape, DType dtype);

  Device device_;
  std::map<std::string, std::unique_ptr<Buffer>> buffers_;
};

}  // namespace mtcki
