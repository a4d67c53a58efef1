// Built-in direct weight gradient. Per strip of output pixels,
//
//   dw[(c, tap), k] += sum over pixels of x[pixel * stride + tap, c] gy[pixel, k]
//
// is a product of a "row" operand, one scalar per (c, tap) and pixel, and a "column" operand,
// vectors of output channels. kRows x 2 vectors stay in registers over the strip. When gy has few
// channels and x is blocked, the roles change: rows are the channels of gy, columns the vectors of
// x at every tap. Threads own images and a dw of their own; those are added in thread order.
#include <utility>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/strip.h"
#include "tensor/parallel.h"

namespace mtcki::conv_direct {

namespace {

using V = FloatVector;
constexpr int kWidth = Simd<float>::width;
constexpr int kRows = kSimdRegisters == 32 ? 14 : 6;
constexpr int kColumns = 2;

// Pixels come in lines: line i starts at row_line[i] and column_line[i] in the two operands.
struct Lines {
  const float *rows, *columns;
  const int64_t *row_line, *column_line;
  int64_t count, length, row_step, column_step;
};

// out[r][2 vectors] += products. row_at, column_at: offsets of the operands' items.
template <int R, int C>
void accumulate(const Lines& l, const int64_t* row_at, const int64_t* column_at, float* out) {
  V acc[R][C];
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = V{};
  for (int64_t i = 0; i < l.count; ++i) {
    const float *row[R], *column[C];
    MTCKI_UNROLL for (int r = 0; r < R; ++r) row[r] = l.rows + l.row_line[i] + row_at[r];
    MTCKI_UNROLL for (int c = 0; c < C; ++c) column[c] =
        l.columns + l.column_line[i] + column_at[c];
    for (int64_t p = 0, rp = 0, cp = 0; p < l.length; ++p, rp += l.row_step, cp += l.column_step) {
      V cv[C];
      MTCKI_UNROLL for (int c = 0; c < C; ++c) cv[c] = load_once(column[c] + cp);
      MTCKI_UNROLL for (int r = 0; r < R; ++r) {
        const V x = broadcast(row[r][rp]);
        MTCKI_UNROLL for (int c = 0; c < C; ++c) acc[r][c] += x * cv[c];
      }
    }
  }
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int c = 0; c < C; ++c) {
    float* to = out + (r * C + c) * kWidth;
    store(to, load(to) + acc[r][c]);
  }
}

using Kernel = void (*)(const Lines&, const int64_t*, const int64_t*, float*);
template <int C, int... R>
Kernel pick(int64_t rows, std::integer_sequence<int, R...>) {
  static constexpr Kernel table[] = {accumulate<R + 1, C>...};
  return table[rows - 1];
}
template <int C>
Kernel pick(int64_t rows) {
  return pick<C>(rows, std::make_integer_sequence<int, kRows>());
}

// One weight gradient: what the items of both operands are, and where dw keeps them.
class WeightGradient {
 public:
  WeightGradient(const ConvProblem& d, const float* gy, const float* x)
      : d_(d), x_{x, d.c, d.h, d.w}, gy_{gy, d.k, d.p, d.q} {
    swapped_ = !gy_.blocked() && x_.blocked();
    window_columns_ = (d.q - 1) * d.stride_w + (d.s - 1) * d.dil_w + 1;
    const int64_t pixels = std::clamp<int64_t>((int64_t{128} << 10) / 4 / d.c, 64, 256);
    size_ = std::make_unique<StripSize>(d.p, d.q, d.n, pixels);
    window_rows_ = (size_->rows - 1) * d.stride_h + (d.r - 1) * d.dil_h + 1;
    const int64_t lanes = x_.lanes(), block = window_rows_ * window_columns_ * lanes;
    // Items of x: (block, tap) and, unless vectors run along the channels, the lane.
    for (int64_t b = 0; b < x_.blocks(); ++b)
      for (int64_t i = 0; i < d.r; ++i)
        for (int64_t j = 0; j < d.s; ++j)
          for (int64_t c = 0; c < (swapped_ ? 1 : lanes); ++c)
            x_items_.push_back(b * block + (i * d.dil_h * window_columns_ + j * d.dil_w) * lanes +
                               c);
    // A plain gy is copied to vectors, padded with zeros, when it supplies the columns.
    padded_ = (d.k + kWidth - 1) / kWidth * kWidth;
    if (swapped_) {
      for (int64_t k = 0; k < d.k; ++k) gy_items_.push_back(k * d.p * d.q);
    } else {
      for (int64_t k = 0; k < padded_; k += kWidth)
        gy_items_.push_back(gy_.blocked() ? k * d.p * d.q : k);
    }
  }

  void run(float* gw) {
    const int64_t images = size_->images, groups = (d_.n + images - 1) / images;
    const int64_t threads = std::min<int64_t>(num_threads(), groups);
    const int64_t size = row_count() * column_groups() * kColumns * kWidth;
    Scratch parts(static_cast<size_t>(threads * size) * sizeof(float));
    parallel_for(threads, 1, [&](int64_t first, int64_t last) {
      Scratch copy(static_cast<size_t>(images * d_.c * window_rows_ * window_columns_) *
                   sizeof(float));
      const bool copy_gy = !swapped_ && !gy_.blocked();
      Scratch gy_copy(
          copy_gy ? static_cast<size_t>(images * size_->rows * d_.q * padded_) * sizeof(float) : 0);
      for (int64_t part = first; part < last; ++part) {
        float* dw = parts.as() + part * size;
        std::fill(dw, dw + size, 0.0f);
        for (int64_t g = groups * part / threads; g < groups * (part + 1) / threads; ++g)
          for (int64_t row = 0; row < d_.p; row += size_->rows)
            strip(g * images, std::min(images, d_.n - g * images), row,
                  std::min(size_->rows, d_.p - row), copy.as(), gy_copy.as(), dw);
      }
    });
    collect(parts.as(), threads, size, gw);
  }

 private:
  const std::vector<int64_t>& row_items() const { return swapped_ ? gy_items_ : x_items_; }
  const std::vector<int64_t>& column_items() const { return swapped_ ? x_items_ : gy_items_; }
  int64_t row_count() const { return static_cast<int64_t>(row_items().size()); }
  int64_t column_groups() const {
    return (static_cast<int64_t>(column_items().size()) + kColumns - 1) / kColumns;
  }

  void strip(int64_t n, int64_t images, int64_t row, int64_t rows, float* copy, float* gy_copy,
             float* dw) {
    // Always the full window, so that the items' offsets hold; rows outside the image are zero.
    const Window win{n,         images,         row * d_.stride_h - d_.pad_h, window_rows_,
                     -d_.pad_w, window_columns_};
    pack(x_, win, copy);
    const bool copied = !swapped_ && !gy_.blocked();
    if (copied) pack_gradient(n, images, row, rows, gy_copy);
    std::vector<int64_t> x_lines, gy_lines;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t u = 0; u < rows; ++u) {
        x_lines.push_back((image * x_.blocks() * window_rows_ + u * d_.stride_h) * window_columns_ *
                          x_.lanes());
        gy_lines.push_back(copied ? (image * rows + u) * d_.q * padded_
                                  : (n + image) * d_.k * d_.p * d_.q +
                                        (row + u) * d_.q * (gy_.blocked() ? kWidth : 1));
      }
    const float* gy_data = copied ? gy_copy : gy_.data;
    const int64_t x_step = d_.stride_w * x_.lanes();
    const int64_t gy_step = copied ? padded_ : gy_.blocked() ? kWidth : 1;
    const int64_t count = std::ssize(x_lines);
    const Lines lines =
        swapped_
            ? Lines{gy_data, copy, gy_lines.data(), x_lines.data(), count, d_.q, gy_step, x_step}
            : Lines{copy, gy_data, x_lines.data(), gy_lines.data(), count, d_.q, x_step, gy_step};
    const int64_t total_rows = row_count(), shares = (total_rows + kRows - 1) / kRows;
    const int64_t total_columns = static_cast<int64_t>(column_items().size());
    for (int64_t c = 0; c < total_columns; c += kColumns)
      for (int64_t share = 0; share < shares; ++share) {
        const int64_t a = total_rows * share / shares, b = total_rows * (share + 1) / shares;
        float* out =
            dw + (c * total_rows + a * std::min<int64_t>(kColumns, total_columns - c)) * kWidth;
        const auto kernel = total_columns - c >= kColumns ? pick<2>(b - a) : pick<1>(b - a);
        kernel(lines, row_items().data() + a, column_items().data() + c, out);
      }
  }

  void pack_gradient(int64_t n, int64_t images, int64_t row, int64_t rows, float* out) const {
    for (int64_t image = 0; image < images; ++image)
      for (int64_t i = 0; i < rows * d_.q; ++i)
        for (int64_t k = 0; k < padded_; ++k)
          *out++ =
              k < d_.k ? gy_.data[((n + image) * d_.k + k) * d_.p * d_.q + row * d_.q + i] : 0.0f;
  }

  // gw[k][c][tap] from the parts' [column pair][row][column][lane].
  void collect(const float* parts, int64_t count, int64_t size, float* gw) const {
    const int64_t rows = row_count(), columns = static_cast<int64_t>(column_items().size());
    const int64_t taps = d_.r * d_.s, lanes = x_.lanes();
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t pair = c / kColumns * kColumns,
                    width = std::min<int64_t>(kColumns, columns - pair);
      for (int64_t r = 0; r < rows; ++r) {
        const float* from = parts + (pair * rows + r * width + (c - pair)) * kWidth;
        for (int64_t lane = 0; lane < kWidth; ++lane) {
          float sum = from[lane];
          for (int64_t p = 1; p < count; ++p) sum += from[p * size + lane];
          const int64_t item = swapped_ ? c : r;  // of x: (block, tap, lane)
          const int64_t in_lane = swapped_ ? lane : item % lanes;
          const int64_t block_tap = swapped_ ? item : item / lanes;
          const int64_t channel = block_tap / taps * lanes + in_lane;
          const int64_t k = swapped_ ? r : c * kWidth + lane;
          if (k < d_.k) gw[(k * d_.c + channel) * taps + block_tap % taps] = sum;
        }
      }
    }
  }

  const ConvProblem& d_;
  Source x_, gy_;
  bool swapped_ = false;
  int64_t window_rows_ = 0, window_columns_ = 0, padded_ = 0;
  std::unique_ptr<StripSize> size_;
  std::vector<int64_t> x_items_, gy_items_;
};

}  // namespace

void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  WeightGradient(d, gy, x).run(gw);
}

}  // namespace mtcki::conv_direct
