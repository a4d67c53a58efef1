#include "mtcki/losses/memory_bank.h"

#include <algorithm>

#include "tensor/ops/index.h"

namespace mtcki {

MemoryBank::MemoryBank(int64_t capacity, int64_t channels, DType dtype, Device device)
    : capacity_(capacity),
      channels_(channels),
      local_(Tensor::empty({capacity, channels}, dtype, device)),
      global_(Tensor::empty({capacity, channels}, dtype, device)) {}

void MemoryBank::add(const Tensor& local, const Tensor& global) {
  const int64_t rows = local.size(0);
  if (local.rank() != 2 || local.size(1) != channels_ || local.shape() != global.shape())
    throw ShapeError(str("memory bank: rows must be pairs of [B, ", channels_, "], got ",
                         local.shape().to_string(), " and ", global.shape().to_string()));
  const int64_t skipped = std::max<int64_t>(0, rows - capacity_);
  position_ = (position_ + skipped) % capacity_;
  for (int64_t from = skipped; from < rows;) {
    const int64_t n = std::min(rows - from, capacity_ - position_);
    local_.slice(position_, position_ + n).copy_(local.slice(from, from + n));
    global_.slice(position_, position_ + n).copy_(global.slice(from, from + n));
    from += n;
    position_ = (position_ + n) % capacity_;
  }
  filled_ = std::min(capacity_, filled_ + rows);
}

Tensor MemoryBank::draw_index(int64_t most, const Rng& rng) const {
  const int64_t n = std::min(most, filled_);
  return n > 0 ? sample_without_replacement(filled_, n, rng) : Tensor();
}

MemoryBank::Draw MemoryBank::rows(const Tensor& index) const {
  if (!index.defined()) return {};
  const Tensor i = index.to(local_.device());
  return {index_select(local_, i).to(DType::f32), index_select(global_, i).to(DType::f32)};
}

void MemoryBank::restart(int64_t added) {
  position_ = added % capacity_;
  filled_ = std::min(capacity_, added);
}

}  // namespace mtcki
