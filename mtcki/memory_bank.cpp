#include "mtcki/memory_bank.h"

#include <algorithm>

#include "tensor/ops/index.h"

namespace mtcki {

MemoryBank::MemoryBank(int64_t capacity, int64_t channels, DType dtype)
    : capacity_(capacity),
      channels_(channels),
      local_(Tensor::empty({capacity, channels}, dtype)),
      global_(Tensor::empty({capacity, channels}, dtype)) {}

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

MemoryBank::Draw MemoryBank::draw(int64_t most, const Rng& rng) const {
  const int64_t n = std::min(most, filled_);
  if (n <= 0) return {};
  const Tensor index = sample_without_replacement(filled_, n, rng);
  return {index_select(local_, index).to(DType::f32), index_select(global_, index).to(DType::f32)};
}

void MemoryBank::restart(int64_t added) {
  position_ = added % capacity_;
  filled_ = std::min(capacity_, added);
}

}  // namespace mtcki
