// Tensor: a dense array on a device, held by a cheap handle. It knows nothing of gradients.
//
// Copying a Tensor copies the handle; both see the same bytes. Every tensor is dense: a view is a
// reshape or a slice of the first dimension, every other indexing copies. There are no strides.
// Rank-4 tensors carry a Layout (tensor/layout.h); shapes are logical NCHW whatever the layout.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/layout.h"
#include "tensor/shape.h"

namespace mtcki {

namespace cuda {
class StreamUses;
}

// The bytes behind one or more tensors; freed to the caching allocator with the last handle.
class Storage {
 public:
  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // Whoever asks for the address is about to use the bytes on its current stream (CUDA).
  void* data() const {
    if (uses_) note_use();
    return data_;
  }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version();
  // Whether another stream may still be using the bytes when the current one comes to it (CUDA).
  bool used_elsewhere() const { return uses_ && is_used_elsewhere(); }
  // How many of the writes went into captured steps, whose replays nobody reports (CUDA).
  uint32_t captured_writes() const { return captured_writes_.load(std::memory_order_relaxed); }

 private:
  void note_use() const;
  bool is_used_elsewhere() const;

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_;
  std::atomic<uint32_t> version_{0}, captured_writes_{0};
  std::unique_ptr<cuda::StreamUses> uses_;  // null on the CPU
};

class Tensor {
 public:
  Tensor() = default;  // undefined: "no tensor here", e.g. a conv without bias

  // Uninitialised memory. Layout `blocked` needs rank 4 and C % kChannelBlock == 0.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = {},
                      Layout layout = Layout::plain);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {},
                      Layout layout = Layout::plain);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = {},
                     Layout layout = Layout::plain);
  static Tensor scalar(double value, DType dtype = DType::f32) { return full({}, value, dtype); }
  // Same shape, dtype, device and layout as x (zeros_like: filled with 0).
  static Tensor empty_like(const Tensor& x);
  static Tensor zeros_like(const Tensor& x);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t size(int dim) const { return shape_[dim]; }
  int rank() const { return shape_.rank(); }
  int64_t numel() const { return shape_.numel(); }
  size_t nbytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device{}; }
  Layout layout() const { return layout_; }
  bool is_plain() const { return layout_ == Layout::plain; }

  // First element. Throws DTypeError when T is not the tensor's type.
  template <class T>
  T* data() const {
    check_dtype(dtype_of<T>::value);
    return reinterpret_cast<T*>(static_cast<char*>(raw()));
  }
  void* raw() const { return storage_ ? static_cast<char*>(storage_->data()) + offset_ : nullptr; }

  // The single element of a tensor with numel() == 1, from whichever device and dtype.
  double item() const;
  // All elements in plain C order on the host.
  template <class T>
  std::vector<T> to_vector() const;

  // Views. reshape: plain tensors share memory, others are converted to plain first; one dimension
  // may be -1. slice: rows [begin, end) of the first dimension.
  Tensor reshape(const Shape& shape) const;
  Tensor slice(int64_t begin, int64_t end) const;
  // The elements as they lie in memory, [numel], shared; and back: this in the shape and layout of
  // `like`.
  Tensor in_memory_order() const;
  Tensor ordered_as(const Tensor& like) const;

  // Copies, or the tensor itself when nothing would change.
  Tensor to(DType dtype) const;
  Tensor to(Layout layout) const;
  Tensor to(Device device) const;
  Tensor plain() const { return to(Layout::plain); }
  Tensor clone() const;

  // In-place writes; each moves the version, which autograd's saved tensors watch. A Tensor is a
  // handle: const says that the handle stays, not the values.
  void fill_(double value) const;
  void zero_() const { fill_(0.0); }
  void copy_(const Tensor& src) const;  // same shape; converts dtype and layout
  void bump_version() const {
    if (storage_) storage_->bump_version();
  }
  uint32_t version() const { return storage_ ? storage_->version() : 0; }
  uint32_t captured_writes() const { return storage_ ? storage_->captured_writes() : 0; }

  // True when no other handle shares the bytes, and no other stream may be using them (CUDA): an op
  // may then reuse them for its result.
  bool unique() const { return only_handle() && !storage_->used_elsewhere(); }
  bool only_handle() const { return storage_ && storage_.use_count() == 1; }
  bool shares_memory(const Tensor& o) const { return storage_ && storage_ == o.storage_; }
  // "[256, 32, 16, 16] f32 cpu"
  std::string describe() const;

 private:
  void check_dtype(DType wanted) const;

  std::shared_ptr<Storage> storage_;
  size_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::f32;
  Layout layout_ = Layout::plain;
};

// The fastest layout on x's device for a rank-4 activation with this many channels: channels_last on
// CUDA and for bf16 where bf16_channels_last(); blocked for f32 and bf16 on the CPU when
// C % kChannelBlock == 0; plain otherwise.
Layout preferred_layout(Device device, DType dtype, int64_t channels);

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  Tensor t = empty(shape, dtype_of<T>::value);
  if (std::ssize(values) != t.numel())
    throw ShapeError(str("Tensor::from: ", values.size(), " values for shape ", shape.to_string()));
  T* out = t.data<T>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return t;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor t = to(Device::cpu()).plain().to(dtype_of<T>::value);
  const T* p = t.data<T>();
  return std::vector<T>(p, p + t.numel());
}

}  // namespace mtcki
