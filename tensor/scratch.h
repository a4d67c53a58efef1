// Internal: memory for the time of one call.
#pragma once

#include <cstddef>

#include "tensor/allocator.h"
#include "tensor/device.h"

namespace mtcki {

// A piece of host memory from the caching allocator.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : data_(allocate(bytes, Device{})), bytes_(bytes) {}
  ~Scratch() { deallocate(data_, bytes_, Device{}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T = float>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t bytes_;
};

}  // namespace mtcki
