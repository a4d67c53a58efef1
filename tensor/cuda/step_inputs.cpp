#include "tensor/cuda/step_inputs.h"

#include <cstring>

#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

StepInputs::Slot::~Slot() {
  try {
    if (used) copied.wait();
  } catch (const Error&) {
    // As in ~StepGraph.
  }
  cuda::free_pinned(pinned);
}

StepInputs::Buffer& StepInputs::buffer(const std::string& name, const Shape& shape, DType dtype) {
  auto& found = buffers_[str(name, ' ', shape.to_string(), ' ', name_of(dtype))];
  if (!found) {
    // Never in the pool of a step: several steps may read the same input.
    const DevicePoolScope pool(0);
    auto made = std::make_unique<Buffer>();
    made->tensor = Tensor::empty(shape, dtype, device_);
    found = std::move(made);
  }
  return *found;
}

Tensor StepInputs::at(const std::string& name, const Shape& shape, DType dtype) {
  return buffer(name, shape, dtype).tensor;
}

Tensor StepInputs::set(const std::string& name, const Tensor& host) {
  if (device_.is_cpu() || !host.defined()) return host;
  cuda::forbid_while_capturing("setting an input");
  Buffer& b = buffer(name, host.shape(), host.dtype());
  const Tensor plain = host.plain();
  const size_t bytes = plain.nbytes();
  if (bytes == 0) return b.tensor;
  Slot& slot = b.slots[b.next++ % kSlots];
  if (!slot.pinned) slot.pinned = cuda::malloc_pinned(bytes);
  if (slot.used) slot.copied.wait();
  std::memcpy(slot.pinned, plain.raw(), bytes);
  cuda::copy_from_pinned(b.tensor.raw(), slot.pinned, bytes);
  slot.copied.record();
  slot.used = true;
  b.tensor.bump_version();
  return b.tensor;
}

Tensor StepInputs::set(const std::string& name, double value) {
  return set(name, Tensor::scalar(value, DType::f32));
}

}  // namespace mtcki
