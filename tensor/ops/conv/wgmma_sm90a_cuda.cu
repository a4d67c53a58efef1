#include <algorithm>
#include <cstring>
#include <type_traits>

#include "tensor/cuda/wgmma.cuh"
#include "tensor/ops/conv/wgmma_cuda.h"

// out[k, pixel] is a sum over taps (r, s) and channels c of a weight times in[c, pixel shifted by
// (r, s)]. The weights are the left operand: a warpgroup keeps those of 64 output and 64 input
// channels, all nine taps, in its registers for its whole life, and goes through units of 128
// pixels, which it brings to shared memory with their margins. There the right operand of every tap
// is the same memory, shifted: pixels lie 16 bytes apart, one plane for each 8 channels. So a
// product reads shared memory for half of the time that it takes the tensor cores, and the input is
// loaded once. The two warpgroups of a block take turns with the products, each stores while the
// other multiplies. The input gradient is the same with the taps turned round and the channels of
// the weights exchanged.
namespace mtcki::conv_cuda::wgmma {

namespace {

using cuda::kWarpgroup;
using cuda::SharedAddress;
using cuda::SharedBlocks;

constexpr int kChannels = 64;  // of either side of a warpgroup's weights
constexpr int kTaps = 9, kSteps = kChannels / 16, kPixels = 128, kColumns = 8;
constexpr int kWarpgroups = 2, kBlock = kWarpgroups * kWarpgroup;
constexpr int kStages = 2;  // units of a warpgroup in shared memory: one at work, one on its way
constexpr int kWeightPitch = (kTaps * kChannels + 8) * 2;
constexpr int kWeightBytes = kChannels * kWeightPitch;
constexpr int kOutBytes = kPixels * kChannels * 2;  // of a warpgroup, on the way to memory

// A unit has 16 / Rows pictures of Rows x 8 pixels.
template <int Rows>
struct Unit {
  static constexpr int kRows = Rows, kPictures = 16 / Rows;
  static constexpr int kInRow = kColumns + 2, kInPicture = kInRow * (Rows + 2);  // in pixels
  // Eight planes, the planes of a pixel in different banks.
  static constexpr int kPlane = (kPictures * kInPicture * 16 + 127) / 128 * 128 + 16;
  static constexpr int kStageBytes = 8 * kPlane;
  static constexpr int kOutsAt = kStages * kWarpgroups * kStageBytes;
  // The weights pass through what is not the first unit's.
  static constexpr int kWeightsAt = kWarpgroups * kStageBytes;
  static constexpr int kSharedBytes =
      std::max(kOutsAt + kWarpgroups * kOutBytes, kWeightsAt + kWeightBytes);
};

struct Problem {
  int n, h, w, out;          // images, pixels, output channels
  int log_down, log_across;  // pictures of an image; some may lie outside
  int units;
  bool turned;
};

struct Picture {
  int image, row, column;  // of its first pixel
};
template <class U>
__device__ inline Picture picture(const Problem& d, int index) {
  const int rest = index & ((1 << (d.log_down + d.log_across)) - 1), row = rest >> d.log_across;
  return {index >> (d.log_down + d.log_across), row * U::kRows,
          (rest - (row << d.log_across)) * kColumns};
}

// The planes of a unit. Warps take rows, eight lanes the packs of a pixel. Addresses outside the
// image are not read.
template <class U>
__device__ inline void load_unit(const Problem& d, const bfloat16* __restrict__ in, int unit,
                                 int warp, int lane, SharedAddress to) {
  constexpr int kAtOnce = 4;  // pixels
  const int pack = lane % 8, column = lane / 8;
  to += static_cast<SharedAddress>(pack * U::kPlane + column * 16);
  MTCKI_UNROLL
  for (int which = 0; which < U::kPictures; ++which) {
    const Picture at = picture<U>(d, unit * U::kPictures + which);
    const int w = at.column + column - 1;
    bool there[3];
    MTCKI_UNROLL
    for (int j = 0; j < 3; ++j)
      there[j] = at.image < d.n && w + j * kAtOnce >= 0 && w + j * kAtOnce < d.w;
    const bfloat16* from =
        in + ((int64_t{at.image} * d.h + at.row + warp - 1) * d.w + w) * kChannels + pack * 8;
    MTCKI_UNROLL
    for (int r = 0; r < U::kRows + 2; r += 4, from += 4 * d.w * kChannels) {
      const int row = r + warp, h = at.row + row - 1;
      if (row >= U::kRows + 2) break;
      const SharedAddress line =
          to + static_cast<SharedAddress>((which * U::kInPicture + row * U::kInRow) * 16);
      MTCKI_UNROLL
      for (int j = 0; j < 3; ++j)
        if (j < 2 || column < U::kInRow - 8)
          cuda::copy16_async(line + static_cast<SharedAddress>(j * kAtOnce * 16),
                             from + j * kAtOnce * kChannels, there[j] && h >= 0 && h < d.h);
    }
  }
}

// 64 x 64 channels with all taps, from OHWI. Rows in shared memory are its output channels, each 16
// bytes longer than what it holds.
__device__ inline void load_weights(const Problem& d, const bfloat16* __restrict__ w, int chunk,
                                    int thread, SharedAddress to) {
  const int row = d.turned ? 0 : chunk * kChannels, column = d.turned ? chunk * kChannels : 0;
  const int channels = d.turned ? d.out : kChannels, pack = thread % 8;
  w += column + pack * 8;
  MTCKI_UNROLL_BY(6)
  for (int i = thread / 8; i < kChannels * kTaps; i += kBlock / 8) {  // output channel and tap
    const int at = i * kChannels * 2 + (i / kTaps + pack) * 16;
    cuda::copy16_async(to + static_cast<SharedAddress>(at), w + (row * kTaps + i) * channels, true);
  }
}

using Weights = uint32_t[kTaps * kSteps][4];

// The fragments of this lane, 16 output channels of its warp by all of the product.
template <bool Turned>
__device__ inline void take_weights(SharedAddress from, int warp, int lane, Weights& weights) {
  const int i = lane % 8, low = lane / 8 % 2 * 8, right = lane / 16 * 8;  // of its matrix
  const int row = Turned ? right + i : warp * 16 + low + i;
  const int column = Turned ? warp * 16 + low : right;
  from += static_cast<SharedAddress>(row * kWeightPitch + column * 2);
  MTCKI_UNROLL
  for (int step = 0; step < kTaps * kSteps; ++step) {
    const int tap = step / kSteps, c = step % kSteps * 16;
    if (Turned) {
      const int at = c * kWeightPitch + (8 - tap) * kChannels * 2;
      cuda::load_transposed(weights[step], from + static_cast<SharedAddress>(at));
    } else {
      const int at = (tap * kChannels + c) * 2;
      cuda::load_matrices(weights[step], from + static_cast<SharedAddress>(at));
    }
  }
}

// All products of a unit, issued.
template <class U>
__device__ inline void multiply(const Weights& weights, SharedAddress unit, float (&sums)[64]) {
  const SharedBlocks in(unit, U::kPlane, U::kInRow * 16);
  const auto multiply_step = [&](auto is_first, int step) {
    constexpr bool kFirst = decltype(is_first)::value;
    const int tap = step / kSteps;
    const int at = step % kSteps * 2 * U::kPlane + (tap / 3 * U::kInRow + tap % 3) * 16;
    if constexpr (U::kPictures == 1) {
      cuda::product<128, 0, kFirst>(sums, weights[step], in.at(at));
    } else {
      cuda::product<64, 0, kFirst>(sums, weights[step], in.at(at));
      cuda::product<64, 32, kFirst>(sums, weights[step], in.at(at + U::kInPicture * 16));
    }
  };
  multiply_step(std::true_type(), 0);
  MTCKI_UNROLL
  for (int step = 1; step < kTaps * kSteps; ++step) multiply_step(std::false_type(), step);
  cuda::end_products();
}

// Eight sums of bf16.
__device__ inline uint4 added(const uint4& a, const uint4& b) {
  const auto pair = [](uint32_t x, uint32_t y) {
    bfloat16 u[2], v[2];
    memcpy(static_cast<void*>(u), &x, 4);
    memcpy(static_cast<void*>(v), &y, 4);
    return cuda::packed(float(u[0]) + float(v[0]), float(u[1]) + float(v[1]));
  };
  return make_uint4(pair(a.x, b.x), pair(a.y, b.y), pair(a.z, b.z), pair(a.w, b.w));
}

// Where pack `pack` of a pixel lies on the way out: packs of neighbouring pixels in other banks.
__device__ inline int out_slot(int pixel, int pack) {
  return pixel * kChannels * 2 + ((pack ^ (pixel % 8)) * 16);
}

// To out (bf16) by way of shared memory.
template <class U>
__device__ inline void store_unit(const Problem& d, const float (&sums)[64], int unit, int chunk,
                                  int warpgroup, int thread, unsigned char* shared,
                                  const bfloat16* more, bfloat16* out) {
  const int warp = thread / 32, lane = thread % 32;
  const SharedAddress address =
      cuda::shared_address(shared) +
      static_cast<SharedAddress>(out_slot(lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2));
  MTCKI_UNROLL
  for (int p = 0; p < kPixels; p += 16) {
    const int j = p / 2;  // 4 sums for 8 pixels
    const uint32_t v[4] = {
        cuda::packed(sums[j], sums[j + 1]), cuda::packed(sums[j + 2], sums[j + 3]),
        cuda::packed(sums[j + 4], sums[j + 5]), cuda::packed(sums[j + 6], sums[j + 7])};
    cuda::store_transposed(address + static_cast<SharedAddress>(p * kChannels * 2), v);
  }
  // Then a thread has a pack of a pixel in every other row.
  const int pack = thread % 8, column = thread / 8 % kColumns, row = thread / 64;
  const auto each_pack = [&](const auto& use) {  // use(which, offset in out, whether it is there)
    MTCKI_UNROLL
    for (int which = 0; which < U::kPictures; ++which) {
      const Picture at = picture<U>(d, unit * U::kPictures + which);
      const int w = at.column + column, h = at.row + row;
      const int rows = at.image < d.n && w < d.w ? d.h - h : 0;
      int64_t offset = ((int64_t{at.image} * d.h + h) * d.w + w) * d.out + chunk * kChannels;
      MTCKI_UNROLL
      for (int r = 0; r < U::kRows; r += 2) {
        use((which * U::kRows + r) / 2, offset + pack * 8, r < rows);
        offset += 2 * d.w * d.out;
      }
    }
  };
  uint4 others[8];
  if (more)
    each_pack([&](int i, int64_t offset, bool there) {
      if (there) others[i] = cuda::load16(more + offset);
    });
  cuda::warpgroup_barrier(warpgroup);
  const unsigned char* const from = shared + out_slot(row * kColumns + column, pack);
  each_pack([&](int i, int64_t offset, bool there) {
    uint4 sum = *reinterpret_cast<const uint4*>(from + i * 16 * kChannels * 2);
    if (more) sum = added(sum, others[i]);
    if (there) cuda::store16(out + offset, sum);
  });
}

// Grid: x blocks that share the units, y chunks of 64 output channels.
template <class U>
__global__ void __launch_bounds__(kBlock, 1)
    convolve_kernel(Problem d, const bfloat16* __restrict__ in, const bfloat16* __restrict__ w,
                    const bfloat16* more, bfloat16* out) {
  MTCKI_DYNAMIC_SHARED(unsigned char, memory);
  cuda::wait_for_previous();
  // From one lane, so that the compiler knows that it is the same in the warp: descriptors are made
  // in uniform registers then.
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int warp = thread / 32, lane = thread % 32, chunk = static_cast<int>(blockIdx.y);
  const int blocks = static_cast<int>(gridDim.x);
  const auto unit_of = [&](int round) {
    return (round * kWarpgroups + warpgroup) * blocks + static_cast<int>(blockIdx.x);
  };
  const auto stage_of = [&](int round) {
    const int stage = round % kStages * kWarpgroups + warpgroup;
    return cuda::shared_address(memory + stage * U::kStageBytes);
  };
  const auto load = [&](int round) {
    if (unit_of(round) < d.units) load_unit<U>(d, in, unit_of(round), warp, lane, stage_of(round));
    cuda::end_copies();
  };

  Weights weights;
  const SharedAddress weights_at = cuda::shared_address(memory + U::kWeightsAt);
  load_weights(d, w, chunk, static_cast<int>(threadIdx.x), weights_at);
  cuda::end_copies();
  load(0);
  cuda::wait_copies<1>();
  __syncthreads();
  if (d.turned) {
    take_weights<true>(weights_at, warp, lane, weights);
  } else {
    take_weights<false>(weights_at, warp, lane, weights);
  }
  __syncthreads();  // other units take their place

  unsigned char* const on_its_way_out = memory + U::kOutsAt + warpgroup * kOutBytes;
  const int rounds = (d.units + kWarpgroups * blocks - 1) / (kWarpgroups * blocks);
  if (warpgroup == 1) cuda::end_turn(1);
  for (int round = 0; round < rounds; ++round) {
    cuda::wait_copies<0>();
    cuda::publish_to_products();
    cuda::warpgroup_barrier(warpgroup);  // the unit is there, the one before is on its way out
    load(round + 1);
    float sums[64];
    cuda::wait_for_turn(warpgroup);
    cuda::begin_products();
    multiply<U>(weights, stage_of(round), sums);
    if (warpgroup == 0 || round + 1 < rounds) cuda::end_turn(warpgroup);
    cuda::wait_products(sums);
    if (unit_of(round) < d.units)
      store_unit<U>(d, sums, unit_of(round), chunk, warpgroup, thread, on_its_way_out, more, out);
  }
}

const cuda::DeviceInfo& device() {
  static const cuda::DeviceInfo info = cuda::device_info(cuda::current_device());
  return info;
}

template <class U>
void run(Problem d, const Tensor& in, const Tensor& w, const Tensor& more, const Tensor& out) {
  while (U::kRows << d.log_down < d.h) ++d.log_down;
  while (kColumns << d.log_across < d.w) ++d.log_across;
  d.units = ((d.n << (d.log_down + d.log_across)) + U::kPictures - 1) / U::kPictures;
  static const bool allowed = [] {
    cuda::allow_shared(convolve_kernel<U>, U::kSharedBytes);
    return true;
  }();
  static_cast<void>(allowed);
  const int chunks = d.out / kChannels;
  const int blocks = std::min(d.units, std::max(1, device().multiprocessors / chunks));
  cuda::launch_small_early(in.nbytes(), convolve_kernel<U>,
                           dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(chunks)),
                           dim3(kBlock), U::kSharedBytes, d, in.data<bfloat16>(),
                           w.data<bfloat16>(), more.defined() ? more.data<bfloat16>() : nullptr,
                           out.data<bfloat16>());
}

void convolve(const ConvProblem& d, bool turned, const Tensor& in, const Tensor& w,
              const Tensor& more, const Tensor& out) {
  const auto i = [](int64_t v) { return static_cast<int>(v); };
  Problem p{};
  p.n = i(d.n), p.h = i(d.h), p.w = i(d.w), p.out = i(turned ? d.c : d.k), p.turned = turned;
  // Pictures of 16 rows need half of the instructions, if not many rows are outside.
  if ((p.h + 15) / 16 * 16 == (p.h + 7) / 8 * 8) {
    run<Unit<16>>(p, in, w, more, out);
  } else {
    run<Unit<8>>(p, in, w, more, out);
  }
}

bool supports(const ConvProblem& d, int64_t in, int64_t out) {
  return d.groups == 1 && d.dil_h == 1 && d.dil_w == 1 && d.r == 3 && d.s == 3 && d.pad_h == 1 &&
         d.pad_w == 1 && d.stride_h == 1 && d.stride_w == 1 && in == kChannels && out > 0 &&
         out % kChannels == 0 && d.n > 0 && d.h > 0 && d.w > 0 &&
         4 * d.n * d.h * d.w < (int64_t{1} << 31) && device().major == 9 && device().minor == 0;
}

}  // namespace

bool supports_forward(const ConvProblem& d) { return supports(d, d.c, d.k); }
bool supports_grad_input(const ConvProblem& d) { return supports(d, d.k, d.c); }

void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& residual,
             const Tensor& y) {
  convolve(d, false, x, w, residual, y);
}

void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                bool add) {
  convolve(d, true, gy, w, add ? gx : Tensor(), gx);
}

}  // namespace mtcki::conv_cuda::wgmma
