#include "tensor/tensor.h"

#include <atomic>
#include <cstring>

#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/stream_order.h"
#include "tensor/op_error.h"
#include "tensor/storage_freed.h"

namespace mtcki {

namespace {

void copy_bytes(void* dst, Device to, const void* src, Device from, size_t bytes) {
  if (bytes == 0) return;
  if (to.is_cpu() && from.is_cpu()) {
    std::memmove(dst, src, bytes);
  } else if (to.is_cpu()) {
    cuda::copy_to_host(dst, src, bytes);
  } else if (from.is_cpu()) {
    cuda::copy_to_device(dst, src, bytes);
  } else {
    cuda::copy_on_device(dst, src, bytes);
  }
}

std::atomic<StorageFreed> storage_freed{nullptr};

}  // namespace

void on_cuda_storage_freed(StorageFreed function) {
  storage_freed.store(function, std::memory_order_release);
}

Storage::Storage(size_t bytes, Device device)
    : data_(allocate(bytes, device)), bytes_(bytes), device_(device) {
  if (device.is_cuda()) uses_ = std::make_unique<cuda::StreamUses>();
}

Storage::~Storage() {
  const auto freed = storage_freed.load(std::memory_order_acquire);
  if (freed && device_.is_cuda()) freed(data_, bytes_);
  deallocate(data_, bytes_, device_, uses_.get());
}

void Storage::note_use() const { uses_->note(); }
bool Storage::is_used_elsewhere() const { return !uses_->known_to(cuda::stream_index()); }

void Storage::bump_version() {
  version_.fetch_add(1, std::memory_order_relaxed);
  if (device_.is_cuda() && cuda::capturing())
    captured_writes_.fetch_add(1, std::memory_order_relaxed);
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device, Layout layout) {
  uint64_t elements = 1;
  for (int64_t d : shape) {
    if (d < 0) throw ShapeError(str("Tensor::empty: negative size in ", shape));
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(d), &elements) ||
        elements > (uint64_t{1} << 60))
      throw ShapeError(str("Tensor::empty: ", shape, " has more elements than memory can address"));
  }
  if (layout != Layout::plain && shape.rank() != 4)
    throw ShapeError(str("Tensor::empty: layout ", name_of(layout), " needs rank 4, got ", shape));
  if (layout == Layout::blocked && device.is_cuda())
    throw ShapeError(
        "Tensor::empty: layout blocked is one of the CPU; CUDA tensors are channels_last or plain");
  if (layout == Layout::blocked && shape[1] % kChannelBlock != 0)
    throw ShapeError(str("Tensor::empty: layout blocked needs channels divisible by ",
                         kChannelBlock, ", got ", shape));
  Tensor t;
  t.storage_ = std::make_shared<Storage>(static_cast<size_t>(elements) * size_of(dtype), device);
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.layout_ = layout;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device, Layout layout) {
  return full(shape, 0.0, dtype, device, layout);
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device, Layout layout) {
  Tensor t = empty(shape, dtype, device, layout);
  t.fill_(value);
  return t;
}

Tensor Tensor::empty_like(const Tensor& x) {
  return empty(x.shape(), x.dtype(), x.device(), x.layout());
}

Tensor Tensor::zeros_like(const Tensor& x) {
  return zeros(x.shape(), x.dtype(), x.device(), x.layout());
}

void Tensor::check_dtype(DType wanted) const {
  if (!defined()) throw DTypeError("Tensor::data: the tensor is undefined");
  if (dtype_ != wanted)
    throw DTypeError(
        str("Tensor::data: asked for ", name_of(wanted), ", the tensor is ", describe()));
}

double Tensor::item() const {
  if (!defined() || numel() != 1)
    throw ShapeError(str("Tensor::item: needs exactly one element, got ", describe()));
  const Tensor host = to(Device::cpu());
  double value = 0;
  MTCKI_DISPATCH_ALL(dtype_, T, { value = static_cast<double>(*host.data<T>()); });
  return value;
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (!defined()) OpError("reshape", "input", *this).argument("the input is undefined");
  Shape target = shape;
  int64_t known = 1;
  int unknown = -1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == -1 && unknown < 0) {
      unknown = i;
    } else if (shape[i] < 0) {
      OpError("reshape", "input", *this)
          .shape(shape, ": sizes must not be negative, one dimension may be -1");
    } else if (__builtin_mul_overflow(known, shape[i], &known)) {
      OpError("reshape", "input", *this).shape("the elements do not fit ", shape);
    }
  }
  if (unknown >= 0 && known == 0)
    OpError("reshape", "input", *this).shape(shape, ": any size would do for -1");
  if (unknown >= 0) target.set(unknown, numel() / known);
  if (target.numel() != numel())
    OpError("reshape", "input", *this).shape("the elements do not fit ", shape);
  Tensor t = plain();
  t.shape_ = target;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  if (rank() == 0 || begin < 0 || begin > end || end > shape_[0])
    OpError("slice", "input", *this).shape("there are no rows [", begin, ", ", end, ")");
  Tensor t = *this;
  const int64_t row = shape_[0] ? numel() / shape_[0] : 0;
  t.shape_.set(0, end - begin);
  t.offset_ += static_cast<size_t>(begin * row) * size_of(dtype_);
  return t;
}

Tensor Tensor::in_memory_order() const {
  Tensor t = *this;
  t.shape_ = {numel()};
  t.layout_ = Layout::plain;
  return t;
}

Tensor Tensor::ordered_as(const Tensor& like) const {
  if (numel() != like.numel() || !is_plain())
    OpError("ordered_as", "input", *this, "like", like)
        .shape("needs as many elements, in plain order");
  Tensor t = *this;
  t.shape_ = like.shape_;
  t.layout_ = like.layout_;
  return t;
}

Tensor Tensor::to(Device device) const {
  if (!defined() || device == this->device()) return *this;
  if (layout_ == Layout::blocked && device.is_cuda()) return plain().to(device);
  Tensor t = empty(shape_, dtype_, device, layout_);
  copy_bytes(t.raw(), device, raw(), this->device(), nbytes());
  return t;
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor t = empty_like(*this);
  copy_bytes(t.raw(), device(), raw(), device(), nbytes());
  return t;
}

void Tensor::copy_(const Tensor& src) const {
  if (!defined() || !src.defined())
    OpError("copy_", "destination", *this, "source", src).argument("an operand is undefined");
  if (shape() != src.shape())
    OpError("copy_", "destination", *this, "source", src).shape("shapes need to be equal");
  // Conversions run where the source is, except to a layout that only this side has.
  const bool here = layout_ == Layout::blocked;
  const Tensor s =
      here ? src.to(dtype_).to(device()).to(layout_) : src.to(dtype_).to(layout_).to(device());
  bump_version();
  if (raw() != s.raw()) copy_bytes(raw(), device(), s.raw(), s.device(), nbytes());
}

std::string Tensor::describe() const {
  if (!defined()) return "undefined";
  std::string text = shape_.to_string() + " " + name_of(dtype_) + " " + device().to_string();
  if (layout_ != Layout::plain) text += std::string(" ") + name_of(layout_);
  return text;
}

}  // namespace mtcki
