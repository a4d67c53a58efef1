#include "mtcki/networks/natural_noise.h"

#include <cmath>

#include "tensor/rng.h"

namespace mtcki {

namespace {

// Adds one octave to a plane: values on a grid of `cell` pixels, shifted by a random part of a cell.
void add_octave(float* plane, int64_t size, int64_t cell, double strength, const Rng& rng) {
  const int64_t side = (size - 1) / cell + 3;  // shifted by almost a cell, and the next one
  const auto grid = randn({side, side}, rng).to_vector<float>();
  const Rng shifts{rng.seed, rng.stream + 1, rng.step};
  const double dy = shifts.uniform(0), dx = shifts.uniform(1);
  for (int64_t y = 0; y < size; ++y) {
    const double gy = static_cast<double>(y) / static_cast<double>(cell) + (cell > 1 ? dy : 0);
    const auto y0 = static_cast<int64_t>(gy);
    const double fy = gy - static_cast<double>(y0);
    for (int64_t x = 0; x < size; ++x) {
      const double gx = static_cast<double>(x) / static_cast<double>(cell) + (cell > 1 ? dx : 0);
      const auto x0 = static_cast<int64_t>(gx);
      const double fx = gx - static_cast<double>(x0);
      const float* g = grid.data() + y0 * side + x0;
      const double top = g[0] * (1 - fx) + g[1] * fx;
      const double bottom = g[side] * (1 - fx) + g[side + 1] * fx;
      plane[y * size + x] += static_cast<float>(strength * (top * (1 - fy) + bottom * fy));
    }
  }
}

void to_unit_variance(float* values, int64_t n) {
  double sum = 0, square = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += values[i];
    square += double{values[i]} * values[i];
  }
  const double mean = sum / static_cast<double>(n);
  const double scale =
      1 / std::sqrt(std::max(1e-12, square / static_cast<double>(n) - mean * mean));
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>((values[i] - mean) * scale);
}

}  // namespace

Tensor natural_noise(int64_t n, int64_t channels, int64_t size, double slope) {
  Tensor out = Tensor::zeros({n, channels, size, size});
  auto* values = out.data<float>();
  const int64_t plane = size * size;
  for (int64_t i = 0; i < n * channels; ++i) {
    uint64_t octave = 0;
    for (int64_t cell = 1; cell <= size; cell *= 2, ++octave) {
      if (slope == 0 && cell > 1) break;  // white
      const double strength = std::pow(2.0, static_cast<double>(octave) * (slope - 1));
      const Rng rng{17, rng_stream("natural noise") + 2 * static_cast<uint32_t>(octave),
                    static_cast<uint64_t>(i)};
      add_octave(values + i * plane, size, cell, strength, rng);
    }
  }
  to_unit_variance(values, n * channels * plane);
  if (channels != 3) return out;
  // Correlations of red with green 0.97, red with blue 0.90, green with blue 0.95, as in CIFAR-10:
  // the Cholesky factor of that matrix.
  for (int64_t i = 0; i < n; ++i) {
    float *r = values + i * 3 * plane, *g = r + plane, *b = g + plane;
    for (int64_t p = 0; p < plane; ++p) {
      const float first = r[p], second = g[p], third = b[p];
      g[p] = 0.97f * first + 0.2431f * second;
      b[p] = 0.90f * first + 0.3167f * second + 0.2995f * third;
    }
  }
  return out;
}

}  // namespace mtcki
