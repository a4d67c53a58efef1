#include <algorithm>
#include <utility>

#include "tensor/ops/conv/narrow_cuda.cuh"

// gw[k, c, r, s] is a sum over pixels of gy[pixel, k] x[pixel shifted by (r, s), c], for each tap
// (r, s) a matrix product of gy transposed and x. A block brings tiles of gy, and of x with its
// margins, to shared memory; every tap reads them there, shifted. A warp has one row of taps and 16
// input channels (or 8), and goes through its part of the pixels of each tile, 16 at a time.
namespace mtcki::conv_cuda::narrow {

namespace {

// Out x In channels; R x R taps; Step: between the input pixels of neighbouring output pixels in
// shared memory. (1x1 kernels leave out what a stride skips: Step is 1.)
template <int Out, int In, int R, int Step>
struct Shape {
  static constexpr int kOut = Out, kIn = In, kTaps = R, kStep = Step;
  static constexpr int kPixels = Step == 2 ? 128 : 256;      // output pixels of a tile
  static constexpr int kM = Out / 16, kN = In == 8 ? 1 : 2;  // fragments of a warp, for each tap
  static constexpr int kGroups = In / (8 * kN);              // of input channels
  static constexpr int kRoles = R * kGroups;
  static constexpr int kParts = (R == 3 ? 4 : 8) / kGroups;  // of the pixels
  static constexpr int kWarps = kRoles * kParts, kThreads = 32 * kWarps;
  static constexpr int kSteps = kPixels / 16 / kParts;
  static constexpr int kFragments = R * kN * kM;
  // Bytes of a pixel in shared memory: an odd multiple of 16, so that the eight rows of a matrix
  // lie in different banks.
  static constexpr int kOutPitch = 2 * Out + 16, kInPitch = In == 8 ? 16 : 2 * In + 16;
  static constexpr int kBlocks = kFragments <= 12 ? 2 : 1;  // per multiprocessor, at least
};

// Warps take rows of pixels, lanes 16 bytes each.
template <class T>
__device__ inline void load_gy(const Geometry& g, const bfloat16* gy, int tile, int warp, int lane,
                               SharedAddress to) {
  constexpr int kChunks = T::kOut / 8;
  const int columns = 1 << g.log_columns, rows = g.pictures << g.log_rows;
  Picture at = picture(g, tile * g.pictures);
  for (int row = warp; row < rows; row += T::kWarps) {
    if (g.pictures > 1) at = picture(g, tile * g.pictures + (row >> g.log_rows));
    const int p = at.p + (row & ((1 << g.log_rows) - 1));
    const bool inside = at.image < g.n && p < g.p;
    const bfloat16* from = gy + (int64_t{at.image} * g.p + p) * g.q * g.k;
    MTCKI_UNROLL_BY(2)
    for (int i = lane; i < columns * kChunks; i += 32) {
      const int column = i / kChunks, chunk = i % kChunks, q = at.q + column;
      const bool there = inside && q < g.q;
      cuda::copy16_async(to + (row * columns + column) * T::kOutPitch + chunk * 16,
                         there ? from + q * g.k + chunk * 8 : gy, there);
    }
  }
}

template <class T>
using Sums = float[T::kTaps][T::kN][T::kM][4];

template <class T>
__device__ inline void add_tile(const Geometry& g, SharedAddress x, SharedAddress gy, int role,
                                int part, int lane, Sums<T>& sums) {
  const int tap_row = role / T::kGroups, group = role % T::kGroups;
  gy += (lane & 7) * T::kOutPitch + (lane >> 3 & 1) * 16;
  x += (lane & 7) * T::kInPitch + (lane >> 4 & (T::kN - 1)) * 16 + group * 32;
  const int log_octets = g.log_columns - 3;
  MTCKI_UNROLL_BY(2)
  for (int i = 0; i < T::kSteps; ++i) {
    const int step = part * T::kSteps + i;
    uint32_t a[T::kM][4];
    const int gy_octet = 2 * step + (lane >> 4);
    MTCKI_UNROLL
    for (int m = 0; m < T::kM; ++m)
      cuda::load_transposed(a[m], gy + gy_octet * 8 * T::kOutPitch + m * 32);
    const int octet = 2 * step + (lane >> 3 & 1);
    const int row = octet >> log_octets, column = (octet - (row << log_octets)) * 8;
    const int which = row >> g.log_rows, p = row - (which << g.log_rows);
    const int slot = (which * g.in_rows + p * T::kStep + tap_row) * g.in_columns + column;
    const SharedAddress pixel = x + slot * T::kInPitch;
    MTCKI_UNROLL
    for (int s = 0; s < T::kTaps; ++s) {
      const int shift = T::kStep == 2 ? (s & 1) * (g.in_columns / 2) + s / 2 : s;
      uint32_t b[2 * T::kN];
      cuda::load_transposed(b, pixel + shift * T::kInPitch);
      MTCKI_UNROLL
      for (int n = 0; n < T::kN; ++n) {
        MTCKI_UNROLL
        for (int m = 0; m < T::kM; ++m) cuda::mma_bf16(sums[s][n][m], a[m], b[2 * n], b[2 * n + 1]);
      }
    }
  }
}

// blockIdx.x: piece of the pixels, blockIdx.y: channels. partial[piece][channels][role][fragment]
// [lane] are the sums of the piece as the tensor cores leave them.
template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    partial_sums_kernel(Geometry g, const bfloat16* __restrict__ x, const bfloat16* __restrict__ gy,
                        float4* __restrict__ partial) {
  MTCKI_DYNAMIC_SHARED(unsigned char, memory);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int role = warp % T::kRoles, part = warp / T::kRoles;
  const int in_blocks = T::kIn == 8 ? 1 : g.c / T::kIn, block = static_cast<int>(blockIdx.y);
  x += block % in_blocks * T::kIn;
  gy += block / in_blocks * T::kOut;
  const int piece = static_cast<int>(blockIdx.x), pieces = static_cast<int>(gridDim.x);
  const int first = static_cast<int>(int64_t{g.tiles} * piece / pieces);
  const int last = static_cast<int>(int64_t{g.tiles} * (piece + 1) / pieces);

  const auto load = [&](int tile) {
    const int at = (tile - first) % kStages * g.stage_bytes;
    if (tile < last) {
      const SharedAddress to = cuda::shared_address(memory + at);
      load_x<T>(g, x, tile, warp, lane, to, memory + at);
      load_gy<T>(g, gy, tile, warp, lane, to + g.in_bytes);
    }
    cuda::end_copies();
  };
  Sums<T> sums = {};
  MTCKI_UNROLL
  for (int i = 0; i < kStages - 1; ++i) load(first + i);
  for (int tile = first; tile < last; ++tile) {
    cuda::wait_copies<kStages - 2>();
    __syncthreads();  // the tile is there, and everybody is done with the one before it
    load(tile + kStages - 1);
    const SharedAddress at =
        cuda::shared_address(memory + (tile - first) % kStages * g.stage_bytes);
    add_tile<T>(g, at, at + g.in_bytes, role, part, lane, sums);
  }

  // The sums of the parts, in their order.
  float4* shared = reinterpret_cast<float4*>(memory);
  const auto fragment = [&](int i) -> float(&)[4] {
    return sums[i / (T::kN * T::kM)][i / T::kM % T::kN][i % T::kM];
  };
  __syncthreads();
  if (part > 0) {
    MTCKI_UNROLL
    for (int i = 0; i < T::kFragments; ++i) {
      const float(&f)[4] = fragment(i);
      shared[(((part - 1) * T::kRoles + role) * T::kFragments + i) * 32 + lane] =
          make_float4(f[0], f[1], f[2], f[3]);
    }
  }
  __syncthreads();
  if (part > 0) return;
  const int64_t blocks = gridDim.y;
  float4* out = partial + ((piece * blocks + block) * T::kRoles + role) * T::kFragments * 32 + lane;
  MTCKI_UNROLL
  for (int i = 0; i < T::kFragments; ++i) {
    const float(&f)[4] = fragment(i);
    float4 sum = make_float4(f[0], f[1], f[2], f[3]);
    MTCKI_UNROLL
    for (int other = 0; other < T::kParts - 1; ++other) {
      const float4 v = shared[((other * T::kRoles + role) * T::kFragments + i) * 32 + lane];
      sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    out[i * 32] = sum;
  }
}

// Where the fragments of the first kernel belong.
struct Fragments {
  int out, in, taps, m, n, groups, in_blocks, channels;

  template <class T>
  static Fragments of(const Geometry& g) {
    return {T::kOut, T::kIn, T::kTaps, T::kM, T::kN, T::kGroups, T::kIn == 8 ? 1 : g.c / T::kIn,
            g.c};
  }
};

constexpr int kQuads = 8, kSlices = 32;  // of a block: float4 side by side, pieces at a time

template <class To>
__global__ void sum_pieces_kernel(Fragments f, const float4* __restrict__ partial, int pieces,
                                  int64_t quads, To* __restrict__ gw, WeightStrides strides) {
  __shared__ float4 sums[kSlices / 4][kQuads];
  const int thread = static_cast<int>(threadIdx.x), column = thread % kQuads;
  const int slice = thread / kQuads;
  const int64_t quad = int64_t{blockIdx.x} * kQuads + column;
  float4 sum = make_float4(0, 0, 0, 0);
  MTCKI_UNROLL_BY(8)
  for (int i = slice; i < pieces; i += kSlices) {
    const float4 v = partial[i * quads + quad];
    sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
  }
  MTCKI_UNROLL
  for (int mask = kQuads; mask < 32; mask *= 2) {
    sum.x += __shfl_xor_sync(~0u, sum.x, mask);
    sum.y += __shfl_xor_sync(~0u, sum.y, mask);
    sum.z += __shfl_xor_sync(~0u, sum.z, mask);
    sum.w += __shfl_xor_sync(~0u, sum.w, mask);
  }
  if (slice % 4 == 0) sums[slice / 4][column] = sum;
  __syncthreads();
  if (thread >= kQuads * 4) return;
  const int which = thread / 4, j = thread % 4;  // an element of a float4
  float total = 0;
  MTCKI_UNROLL
  for (int i = 0; i < kSlices / 4; ++i) total += reinterpret_cast<const float*>(&sums[i][which])[j];

  const int64_t at = int64_t{blockIdx.x} * kQuads + which;
  const int lane = static_cast<int>(at % 32);
  int rest = static_cast<int>(at / 32);
  const auto next = [&rest](int size) {
    const int digit = rest % size;
    rest /= size;
    return digit;
  };
  const int m = next(f.m), n = next(f.n), s = next(f.taps), group = next(f.groups);
  const int r = next(f.taps), in_block = next(f.in_blocks), out_block = rest;
  const int k = out_block * f.out + m * 16 + lane / 4 + j / 2 * 8;
  const int c = in_block * f.in + group * 16 + n * 8 + lane % 4 * 2 + j % 2;
  if (c < f.channels) gw[k * strides.k + c * strides.c + r * strides.r + s * strides.s] = To(total);
}

template <class T>
size_t shared_bytes(const Geometry& g) {
  return static_cast<size_t>(std::max(
      kStages * g.stage_bytes,
      (T::kParts - 1) * T::kRoles * T::kFragments * 32 * static_cast<int>(sizeof(float4))));
}

// With few output channels and stride 1, gy and x change places: the sum over pixels of
// gy[pixel, k] x[pixel shifted, c] is that of x[pixel, c] gy[pixel shifted the other way, k].
bool changes_places(const ConvProblem& d) {
  return d.k <= 8 && d.c > 8 && d.stride_h == 1 && d.stride_w == 1;
}
ConvProblem placed(ConvProblem d) {
  if (changes_places(d)) std::swap(d.c, d.k);
  return d;
}

template <class T>
void run(const ConvProblem& d, const Tensor& gy, const Tensor& x, const Tensor& gw,
         const WeightStrides& strides, int pieces, int64_t offset) {
  const Geometry g = geometry<T>(d);
  if (pieces < 1 || pieces > g.tiles)
    throw Error(str("convolution of few channels: ", pieces, " pieces of ", g.tiles, " tiles"));
  const Fragments f = Fragments::of<T>(g);
  const int blocks = g.k / T::kOut * f.in_blocks;
  const int64_t quads = int64_t{blocks} * T::kRoles * T::kFragments * 32;
  const Tensor partial = Tensor::empty({pieces, quads * 4}, DType::f32, gy.device());
  auto* quad = reinterpret_cast<float4*>(partial.data<float>());
  static const bool allowed = [] {
    cuda::allow_shared(partial_sums_kernel<T>, most_shared<T>(shared_bytes<T>));
    return true;
  }();
  static_cast<void>(allowed);
  cuda::launch(
      partial_sums_kernel<T>, dim3(static_cast<unsigned>(pieces), static_cast<unsigned>(blocks)),
      dim3(T::kThreads), shared_bytes<T>(g), g, x.data<bfloat16>(), gy.data<bfloat16>(), quad);
  const dim3 grid(static_cast<unsigned>(quads / kQuads)), threads(kQuads * kSlices);
  if (gw.dtype() == DType::f32)
    cuda::launch(sum_pieces_kernel<float>, grid, threads, 0, f, quad, pieces, quads,
                 gw.data<float>() + offset, strides);
  else
    cuda::launch(sum_pieces_kernel<bfloat16>, grid, threads, 0, f, quad, pieces, quads,
                 gw.data<bfloat16>() + offset, strides);
}

// Calls use(Shape<...>()) with the kernel of a division.
template <int Out, int In, class Use>
void with_taps(const ConvProblem& d, const Use& use) {
  if (d.r == 1) return use(Shape<Out, In, 1, 1>());
  if (d.stride_h == 1) return use(Shape<Out, In, 3, 1>());
  use(Shape<Out, In, 3, 2>());
}
template <class Use>
void with_shape(const ConvProblem& d, const Division& by, const Use& use) {
  switch (by.out * 100 + by.in) {
    case 1608:
      return with_taps<16, 8>(d, use);
    case 3208:
      return with_taps<32, 8>(d, use);
    case 6408:
      return with_taps<64, 8>(d, use);
    case 1616:
      return with_taps<16, 16>(d, use);
    case 3216:
      return with_taps<32, 16>(d, use);
    case 1632:
      return with_taps<16, 32>(d, use);
    case 3232:
      return with_taps<32, 32>(d, use);
    case 6432:
      return with_taps<64, 32>(d, use);
    default:
      break;
  }
  throw Error(str("convolution of few channels: no kernel for ", by.out, "x", by.in, " channels"));
}

}  // namespace

bool supports(const ConvProblem& given) {
  const ConvProblem d = placed(given);
  return d.groups == 1 && d.dil_h == 1 && d.dil_w == 1 && d.r == d.s && (d.r == 1 || d.r == 3) &&
         d.pad_h == d.r / 2 && d.pad_w == d.r / 2 && d.stride_h == d.stride_w &&
         (d.stride_h == 1 || d.stride_h == 2) && d.c > 0 && d.c <= 128 &&
         (d.c <= 8 || d.c % 16 == 0) && d.k > 0 && d.k <= 128 && d.k % 16 == 0 && d.n > 0 &&
         std::max(d.n * d.h * d.w, d.n * d.p * d.q) < (int64_t{1} << 31) && device().major >= 8;
}

Division division(const ConvProblem& given) {
  const ConvProblem d = placed(given);
  Division by;
  by.in = d.c <= 8 ? 8 : d.c % 32 == 0 ? 32 : 16;
  by.out = d.k % 64 == 0 && by.in != 16 ? 64 : d.k % 32 == 0 ? 32 : 16;
  for (;;) {
    int tiles = 0;
    size_t shared = 0;
    with_shape(d, by, [&](auto shape) {
      using T = decltype(shape);
      const Geometry g = geometry<T>(d);
      tiles = g.tiles;
      shared = shared_bytes<T>(g);
    });
    const int blocks = static_cast<int>(d.k / by.out * ((d.c + by.in - 1) / by.in));
    const int processors = std::max(1, device().multiprocessors);
    // Fewer output channels to a block rather than idle multiprocessors.
    if (by.out > 16 && (tiles * blocks < processors * 3 / 4 || shared > device().shared)) {
      by.out /= 2;
      continue;
    }
    // Nor more input channels than a block has room for: a GeForce has none for 32 of stride 2.
    if (by.in == 32 && shared > device().shared) {
      by.in = 16;
      continue;
    }
    const int wanted = std::max(1, processors * (2 * shared <= device().shared ? 2 : 1) / blocks);
    const int each = (tiles + wanted - 1) / wanted;  // tiles of a piece
    by.pieces = (tiles + each - 1) / each;
    return by;
  }
}

void grad_weight(const ConvProblem& given, const Tensor& gy, const Tensor& x, const Tensor& gw,
                 const WeightStrides& strides, const Division& by) {
  const ConvProblem d = placed(given);
  if (d.k % by.out != 0 || (by.in == 8 ? d.c > 8 : d.c % by.in != 0))
    throw Error(str("convolution of few channels: ", d.c, "->", d.k, " in blocks of ", by.in, "->",
                    by.out));
  with_shape(d, by, [&](auto shape) {
    using T = decltype(shape);
    if (!changes_places(given)) return run<T>(d, gy, x, gw, strides, by.pieces, 0);
    const WeightStrides turned{strides.c, strides.k, -strides.r, -strides.s};
    const int64_t last_tap = (d.r - 1) * strides.r + (d.s - 1) * strides.s;
    run<T>(d, x, gy, gw, turned, by.pieces, last_tap);
  });
}

}  // namespace mtcki::conv_cuda::narrow
