#include "mtcki/synthesis/views.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"

namespace mtcki {

ViewParameters draw_views(int64_t batch, int64_t height, int64_t width, int64_t pad, bool flip,
                          double min_crop, const Rng& rng) {
  ViewParameters p;
  p.offset = Tensor::empty({batch, 2}, DType::i32);
  p.box = Tensor::empty({batch, 4}, DType::f32);
  if (flip) {
    p.flip = Tensor::empty({batch}, DType::boolean);
    p.local_flip = Tensor::empty({batch}, DType::boolean);
  }
  const double log_ratio = std::log(4.0 / 3.0);
  for (int64_t i = 0; i < batch; ++i) {
    // Eight draws per sample, each with its own index.
    const auto uniform = [&](uint64_t k) { return rng.uniform(static_cast<uint64_t>(i) * 8 + k); };
    const auto below = [&](uint64_t n, uint64_t k) {
      return static_cast<int32_t>(rng.below(n, static_cast<uint64_t>(i) * 8 + k));
    };
    const uint64_t positions = static_cast<uint64_t>(2 * pad + 1);
    p.offset.data<int32_t>()[2 * i] = below(positions, 0);
    p.offset.data<int32_t>()[2 * i + 1] = below(positions, 1);
    const double area =
        (min_crop + (1.0 - min_crop) * uniform(2)) * static_cast<double>(height * width);
    const double ratio = std::exp(log_ratio * (2.0 * uniform(3) - 1.0));
    const double w = std::min(std::sqrt(area * ratio), static_cast<double>(width));
    const double h = std::min(std::sqrt(area / ratio), static_cast<double>(height));
    float* box = p.box.data<float>() + 4 * i;
    box[0] = static_cast<float>(uniform(4) * (static_cast<double>(height) - h));
    box[1] = static_cast<float>(uniform(5) * (static_cast<double>(width) - w));
    box[2] = static_cast<float>(h);
    box[3] = static_cast<float>(w);
    if (flip) {
      p.flip.data<bool>()[i] = uniform(6) < 0.5;
      p.local_flip.data<bool>()[i] = uniform(7) < 0.5;
    }
  }
  return p;
}

void draw_roll(const Shape& images, int64_t reach, bool flip, const Rng& rng, ViewParameters* p) {
  const int64_t height = images[2], width = images[3], planes = images[0] * images[1];
  const auto shift = [&](uint64_t k, int64_t size) {  // in [0, size)
    const auto drawn = static_cast<int64_t>(rng.below(static_cast<uint64_t>(2 * reach + 1), k));
    return ((drawn - reach) % size + size) % size;
  };
  const int64_t down = shift(0, height), right = shift(1, width);
  const bool mirror = flip && rng.uniform(2) < 0.5;
  p->roll_rows = Tensor::empty({planes * height}, DType::i64);
  for (int64_t i = 0; i < planes * height; ++i)
    p->roll_rows.data<int64_t>()[i] = i - i % height + (i % height + height - down) % height;
  p->roll_columns = Tensor::zeros({width, width}, DType::f32);
  for (int64_t x = 0; x < width; ++x) {
    const int64_t from = (x + width - right) % width;
    p->roll_columns.data<float>()[(mirror ? width - 1 - from : from) * width + x] = 1;
  }
}

Variable global_view(const Variable& images, const ViewParameters& p, int64_t pad) {
  if (p.roll_rows.defined()) {
    const Variable x = to_layout(images, Layout::plain);
    const Variable rows = index_select(reshape(x, {p.roll_rows.size(0), x.size(3)}), p.roll_rows);
    const Tensor columns = p.roll_columns.to(x.data().dtype());
    return reshape(matmul(rows, Variable(columns)), x.data().shape());
  }
  if (pad == 0 && !p.flip.defined()) return images;
  return pad_crop_flip(images, pad, p.offset, p.flip);
}

Variable local_view(const Variable& images, const ViewParameters& p) {
  return resized_crop_flip(images, p.box, p.local_flip, images.size(2), images.size(3));
}

}  // namespace mtcki
