#include "tensor/kernels/channel_walk.h"

#include <algorithm>

#include "tensor/parallel.h"

namespace mtcki {

void walk_channels(const ChannelView& v, const ChannelLoop& loop) {
  const int64_t W = loop.width, segment = v.inner * v.block;
  if (v.outer * v.blocks * segment == 0) return;
  const auto vectors = [&](const ChannelRun& run) { loop.vectors(loop.self, run); };
  const auto elements = [&](const ChannelRun& run) { loop.elements(loop.self, run); };
  if (v.blocks == 1 && v.inner == 1) {  // rows of all channels: parameters stay for a few rows
    const int64_t rows = std::clamp<int64_t>((1 << 12) / v.block, 1, 64);
    const int64_t groups = (v.outer + rows - 1) / rows;
    parallel_for(groups, std::max<int64_t>(1, (1 << 14) / (rows * v.block)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t g = begin; g < end; ++g) {
                     const int64_t first = g * rows, count = std::min(v.outer - first, rows);
                     int64_t b = 0;
                     for (; b + W <= v.block; b += W)
                       vectors({first * v.block + b, count, v.block, b, false});
                     for (; b < v.block; ++b)
                       elements({first * v.block + b, count, v.block, b, false});
                   }
                 });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / segment);
  parallel_for(v.outer * v.blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t k = t % v.blocks, base = t * segment;
      if (v.block == 1) {
        const int64_t whole = segment / W * W;
        if (whole > 0) vectors({base, segment / W, W, k, true});
        if (whole < segment) elements({base + whole, segment - whole, 1, k, true});
      } else {
        int64_t b = 0;
        for (; b + W <= v.block; b += W)
          vectors({base + b, v.inner, v.block, k * v.block + b, false});
        for (; b < v.block; ++b) elements({base + b, v.inner, v.block, k * v.block + b, false});
      }
    }
  });
}

template <class T>
std::vector<double> sum_channels(const ChannelView& v, const ChannelSums<T>& loop) {
  constexpr int64_t kChunk = 256;
  const int64_t W = loop.width, K = loop.sums, channels = v.channels();
  const int64_t segment = v.inner * v.block;
  std::vector<double> total(static_cast<size_t>(K * channels), 0.0);
  const int64_t tasks = v.outer * v.blocks;
  if (tasks * segment == 0) return total;
  const int64_t parts = std::clamp<int64_t>(tasks * segment >> 14, 1, std::min<int64_t>(tasks, 64));
  std::vector<double> partial(static_cast<size_t>(parts * K * channels), 0.0);

  // Adds the sums of a run to those of one channel, or of as many as a vector has lanes.
  const auto add_vectors = [&](double* sums, const ChannelRun& run) {
    T acc[ChannelSums<T>::kMost * Simd<T>::width];
    loop.vectors(loop.self, run, acc);
    for (int64_t s = 0; s < K; ++s)
      for (int64_t w = 0; w < W; ++w)
        sums[s * channels + run.channel + (run.one_channel ? 0 : w)] += acc[s * W + w];
  };
  const auto add_elements = [&](double* sums, const ChannelRun& run) {
    T acc[ChannelSums<T>::kMost];
    loop.elements(loop.self, run, acc);
    for (int64_t s = 0; s < K; ++s) sums[s * channels + run.channel] += acc[s];
  };
  // An image's plane of one channel.
  const auto add_plane = [&](double* sums, int64_t t) {
    const int64_t k = t % v.blocks, vectors = segment / W, base = t * segment;
    for (int64_t i = 0; i < vectors; i += kChunk)
      add_vectors(sums, {base + i * W, std::min(kChunk, vectors - i), W, k, true});
    if (vectors * W < segment)
      add_elements(sums, {base + vectors * W, segment - vectors * W, 1, k, true});
  };
  // An image's plane of one block of channels.
  const auto add_block = [&](double* sums, int64_t t) {
    for (int64_t b = 0; b < kChannelBlock; b += W)
      for (int64_t i = 0; i < v.inner; i += kChunk)
        add_vectors(sums, {t * segment + i * kChannelBlock + b, std::min(kChunk, v.inner - i),
                           kChannelBlock, t % v.blocks * kChannelBlock + b, false});
  };
  // Rows of all channels (outer x 1 x inner x C), or blocks of a 1x1 plane. Rows of the same block
  // are `blocks` segments apart; a chunk of them stays in the cache.
  const auto add_rows = [&](double* sums, int64_t t0, int64_t t1) {
    const int64_t step = v.blocks * segment;
    for (int64_t k0 = t0; k0 < std::min(t1, t0 + v.blocks); ++k0) {
      const int64_t k = k0 % v.blocks, count = (t1 - k0 + v.blocks - 1) / v.blocks;
      for (int64_t i = 0; i < v.inner; ++i) {
        const int64_t first = k0 * segment + i * v.block;
        int64_t b = 0;
        for (; b + W <= v.block; b += W)
          add_vectors(sums, {first + b, count, step, k * v.block + b, false});
        for (; b < v.block; ++b)
          add_elements(sums, {first + b, count, step, k * v.block + b, false});
      }
    }
  };

  parallel_for(parts, 1, [&](int64_t part_begin, int64_t part_end) {
    for (int64_t part = part_begin; part < part_end; ++part) {
      double* sums = partial.data() + part * K * channels;
      const int64_t begin = tasks * part / parts, end = tasks * (part + 1) / parts;
      if (v.block == 1) {
        for (int64_t t = begin; t < end; ++t) add_plane(sums, t);
      } else if (v.block == kChannelBlock && v.inner > 1) {
        for (int64_t t = begin; t < end; ++t) add_block(sums, t);
      } else {
        const int64_t chunk = 64 * v.blocks;
        for (int64_t t = begin; t < end; t += chunk) add_rows(sums, t, std::min(end, t + chunk));
      }
    }
  });
  for (int64_t part = 0; part < parts; ++part) {
    const double* from = partial.data() + part * K * channels;
    for (int64_t i = 0; i < K * channels; ++i) total[static_cast<size_t>(i)] += from[i];
  }
  return total;
}

template std::vector<double> sum_channels(const ChannelView&, const ChannelSums<float>&);
template std::vector<double> sum_channels(const ChannelView&, const ChannelSums<double>&);

}  // namespace mtcki
