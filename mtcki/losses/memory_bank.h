// MemoryBank: a ring of past (φ_local, φ_global) feature pairs, unprojected, so that it stays valid
// when the contrast head changes. Any batch size wraps; when exactly full it draws from all rows.
#pragma once

#include <cstdint>

#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace mtcki {

class MemoryBank {
 public:
  // Rows are stored as dtype (f32 or bf16); memory is touched as rows come in.
  MemoryBank(int64_t capacity, int64_t channels, DType dtype, Device device = {});

  int64_t capacity() const { return capacity_; }
  int64_t channels() const { return channels_; }
  int64_t filled() const { return filled_; }
  int64_t position() const { return position_; }  // where the next row goes

  // Pairs of rows [B, C]. Of a batch larger than the ring, the last rows stay.
  void add(const Tensor& local, const Tensor& global);

  struct Draw {
    Tensor local, global;  // f32 [n, C]; undefined when the bank is empty
  };
  // n = min(most, filled) distinct rows.
  Draw draw(int64_t most, const Rng& rng) const { return rows(draw_index(most, rng)); }
  // In two parts: which rows (i64 [n] on the CPU, undefined when there is none), and their copies.
  Tensor draw_index(int64_t most, const Rng& rng) const;
  Draw rows(const Tensor& index) const;

  // Continues a ring to which `added` rows had been added; the rows still in it follow by add().
  void restart(int64_t added);

 private:
  int64_t capacity_, channels_, filled_ = 0, position_ = 0;
  Tensor local_, global_;
};

}  // namespace mtcki
