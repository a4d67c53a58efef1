#include <algorithm>

#include "tensor/ops/conv/narrow_cuda.cuh"

// out[pixel, k] is a sum over taps (r, s) and channels c of in[pixel shifted by (r, s), c] times a
// weight: an implicit matrix product, pixels x (taps, channels) x k. A block keeps all weights in
// shared memory, in the order in which tensor cores take them, and goes through tiles of pixels,
// which it brings to shared memory with their margins; every tap reads them there, shifted. A warp
// has 32 pixels of a tile and all k. The input gradient is the same with the taps turned round and
// the channels of the weights exchanged.
namespace mtcki::conv_cuda::narrow {

namespace {

// In input, Out output channels; 8: at most 8.
template <int In, int Out>
struct Whole {
  static constexpr int kIn = In, kTaps = 3, kStep = 1;
  static constexpr int kWarps = 8, kThreads = 32 * kWarps;
  static constexpr int kM = 2, kN = Out / 8;  // fragments of a warp: 16 pixels, 8 channels
  static constexpr int kPixels = 16 * kM * kWarps;
  static constexpr int kInPitch = In == 8 ? 16 : 2 * In + 16, kOutPitch = 0;
  // Steps of 16 along the product. With 8 channels a step has two taps, and the last one half.
  static constexpr int kSteps = In == 8 ? 5 : 9 * In / 16, kStepsOfTap = In == 8 ? 1 : In / 16;
  static constexpr int kRegisters = 2 * (kN == 1 ? 1 : 2);  // of weights that a lane loads at once
  static constexpr int kWeightBytes = kSteps * kN * 32 * 2 * 4;
  static constexpr int kBlocks = Out == 64 ? (In == 64 ? 1 : 2) : In == 64 ? 1 : 3;
};

struct alignas(16) Pack {
  bfloat16 v[8];
};

// Where a weight lies in shared memory, in bf16 elements: out channel o, tap, input channel c.
template <class T>
__device__ inline int weight_slot(int o, int tap, int c) {
  const int step = T::kIn == 8 ? tap / 2 : (tap * T::kIn + c) / 16;
  const int row = T::kIn == 8 ? tap % 2 * 8 + c : c % 16;
  constexpr int kAtOnce = T::kRegisters / 2;  // fragments
  const int n = o / 8, lane = o % 8 * 4 + row % 8 / 2;
  const int reg = n % kAtOnce * 2 + row / 8;
  return (((step * (T::kN / kAtOnce) + n / kAtOnce) * 32 + lane) * T::kRegisters + reg) * 2 +
         row % 2;
}

// w: OHWI of the convolution; turned: for the input gradient. Two neighbouring input channels at a
// time, in an order in which the threads of a warp write to different banks.
template <class T>
__device__ inline void load_weights(const Geometry& g, const bfloat16* __restrict__ w, bool turned,
                                    bfloat16* to) {
  const int thread = static_cast<int>(threadIdx.x);
  if (T::kIn == 8 || T::kN == 1) {  // there are slots that no weight fills
    for (int i = thread; i < T::kWeightBytes / 16; i += T::kThreads)
      reinterpret_cast<uint4*>(to)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
  }
  const auto put = [&](int slot, bfloat16 low, bfloat16 high) {
    const bfloat16 pair[2] = {low, high};
    memcpy(to + slot, pair, 4);
  };
  constexpr int kLane = 2 * T::kRegisters;  // from the weights of a lane to those of the next
  const auto pack_of = [&](int outer, int tap, int pack, int packs) {
    return reinterpret_cast<const Pack*>(w)[(outer * 9 + tap) * packs + pack];
  };
  if (!turned && g.c % 8 == 0) {
    const int packs = g.c / 8;
    MTCKI_UNROLL_BY(2)
    for (int i = thread; i < g.k * 9 * packs; i += T::kThreads) {
      const int o = i % g.k, pack = i / g.k % packs, tap = i / g.k / packs;
      const Pack p = pack_of(o, tap, pack, packs);
      const int slot = weight_slot<T>(o, tap, pack * 8);
      MTCKI_UNROLL
      for (int j = 0; j < 4; ++j) put(slot + j * kLane, p.v[2 * j], p.v[2 * j + 1]);
    }
  } else if (turned && g.c % 16 == 0 && g.k % 8 == 0) {
    const int packs = g.k / 8;
    MTCKI_UNROLL_BY(2)
    for (int i = thread; i < g.c / 2 * 9 * packs; i += T::kThreads) {
      const int pack = i / 8 % packs, rest = i / 8 / packs;
      const int tap = rest % 9, c = rest / 9 * 16 + i % 8 * 2;
      const Pack low = pack_of(c, tap, pack, packs), high = pack_of(c + 1, tap, pack, packs);
      const int slot = weight_slot<T>(pack * 8, 8 - tap, c);
      MTCKI_UNROLL
      for (int j = 0; j < 8; ++j) put(slot + j * 4 * kLane, low.v[j], high.v[j]);
    }
  } else {  // a few
    const int inner = turned ? g.k : g.c;
    for (int i = thread; i < g.k * 9 * g.c; i += T::kThreads) {
      const int outer = i / inner / 9, tap = i / inner % 9, in = i % inner;
      to[turned ? weight_slot<T>(in, 8 - tap, outer) : weight_slot<T>(outer, tap, in)] = w[i];
    }
  }
}

template <class T>
struct alignas(4 * T::kRegisters) Registers {
  uint32_t v[T::kRegisters];
};
template <class T>
using Pixels = float[T::kM][T::kN][4];

// pixel: of the row of fragment m that this lane passes, with the half of the channels of a step.
template <class T>
__device__ inline void multiply(const Geometry& g, const SharedAddress (&pixel)[T::kM],
                                const Registers<T>* weights, int lane, Pixels<T>& sums) {
  const int row_pitch = g.in_columns * T::kInPitch;
  const auto tap_offset = [&](int tap) { return tap / 3 * row_pitch + tap % 3 * T::kInPitch; };
  constexpr int kAtOnce = T::kRegisters / 2;
  MTCKI_UNROLL
  for (int step = 0; step < T::kSteps; ++step) {
    int offset = 0;
    if (T::kIn == 8) {  // the second tap of the last step meets zero weights
      offset = lane < 16 ? tap_offset(2 * step) : tap_offset(step == 4 ? 8 : 2 * step + 1);
    } else {
      offset = tap_offset(step / T::kStepsOfTap) + step % T::kStepsOfTap * 32;
    }
    uint32_t a[T::kM][4];
    MTCKI_UNROLL
    for (int m = 0; m < T::kM; ++m) cuda::load_matrices(a[m], pixel[m] + offset);
    MTCKI_UNROLL
    for (int n = 0; n < T::kN; n += kAtOnce) {
      const Registers<T> b = weights[(step * (T::kN / kAtOnce) + n / kAtOnce) * 32 + lane];
      MTCKI_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        MTCKI_UNROLL
        for (int m = 0; m < T::kM; ++m)
          cuda::mma_bf16(sums[m][n + i], a[m], b.v[2 * i], b.v[2 * i + 1]);
      }
    }
  }
}

// Among four lanes: lane t gets the t-th values of the four, in the order of the lanes.
__device__ inline void exchange(uint32_t (&v)[4], int t) {
  MTCKI_UNROLL
  for (int mask = 1; mask < 4; mask *= 2) {
    const bool upper = (t & mask) != 0;
    MTCKI_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (i & mask) continue;
      const uint32_t a = v[i], b = v[i | mask];
      const uint32_t got = __shfl_xor_sync(~0u, upper ? a : b, mask);
      v[i] = upper ? got : a;
      v[i | mask] = upper ? b : got;
    }
  }
}

// 8 channels of a pixel, with those at `more` if not null.
__device__ inline void store(bfloat16* to, const uint32_t (&v)[4], const bfloat16* more) {
  Pack sum;
  memcpy(static_cast<void*>(&sum), v, 16);
  if (more) {
    const Pack others = *reinterpret_cast<const Pack*>(more);
    for (int i = 0; i < 8; ++i) sum.v[i] = bfloat16(float(others.v[i]) + float(sum.v[i]));
  }
  *reinterpret_cast<Pack*>(to) = sum;
}

template <class T>
__device__ inline void store_tile(const Geometry& g, int tile, int warp, int lane,
                                  const Pixels<T>& sums, bfloat16* out, const bfloat16* more) {
  const int row = lane / 4, t = lane % 4;
  Picture at = picture(g, tile * g.pictures);
  // Where pixel i of the tile begins, -1 outside the image.
  const auto pixel = [&](int i) -> int64_t {
    const int line = i >> g.log_columns, which = line >> g.log_rows;
    if (g.pictures > 1) at = picture(g, tile * g.pictures + which);
    const int p = at.p + line - (which << g.log_rows);
    const int q = at.q + i - (line << g.log_columns);
    if (at.image >= g.n || p >= g.p || q >= g.q) return -1;
    return ((int64_t{at.image} * g.p + p) * g.q + q) * g.k;
  };
  const auto store_pack = [&](int64_t offset, const uint32_t(&v)[4]) {
    store(out + offset, v, more ? more + offset : nullptr);
  };
  MTCKI_UNROLL
  for (int m = 0; m < T::kM; ++m) {
    const int first = (warp * T::kM + m) * 16 + row;
    const int64_t to[2] = {pixel(first), pixel(first + 8)};
    const auto value = [&](int half, int n) {
      return cuda::packed(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
    };
    if (T::kN == 1) {
      MTCKI_UNROLL
      for (int half = 0; half < 2; ++half)
        for (int j = 0; j < 2; ++j) {
          const int k = 2 * t + j;
          if (to[half] < 0 || k >= g.k) continue;
          const float v = sums[m][0][2 * half + j];
          out[to[half] + k] = bfloat16(more ? v + float(more[to[half] + k]) : v);
        }
    } else if (T::kN == 2) {
      uint32_t v[4] = {value(0, 0), value(0, 1 % T::kN), value(1, 0), value(1, 1 % T::kN)};
      exchange(v, t);
      const int64_t mine = t < 2 ? to[0] : to[1];
      if (mine >= 0) store_pack(mine + t % 2 * 8, v);
    } else {
      MTCKI_UNROLL
      for (int half = 0; half < 2; ++half) {
        MTCKI_UNROLL
        for (int n = 0; n + 3 < T::kN; n += 4) {
          uint32_t v[4] = {value(half, n), value(half, n + 1), value(half, n + 2),
                           value(half, n + 3)};
          exchange(v, t);
          if (to[half] >= 0) store_pack(to[half] + (n + t) * 8, v);
        }
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    convolve_kernel(Geometry g, const bfloat16* __restrict__ in, const bfloat16* __restrict__ w,
                    const bfloat16* more, bfloat16* out, bool turned) {
  MTCKI_DYNAMIC_SHARED(unsigned char, memory);
  cuda::wait_for_previous();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  unsigned char* const tiles = memory + T::kWeightBytes;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int first = static_cast<int>(int64_t{g.tiles} * block / blocks);
  const int last = static_cast<int>(int64_t{g.tiles} * (block + 1) / blocks);
  const auto load = [&](int tile) {
    unsigned char* const to = tiles + (tile - first) % kStages * g.stage_bytes;
    if (tile < last) load_x<T>(g, in, tile, warp, lane, cuda::shared_address(to), to);
    cuda::end_copies();
  };
  MTCKI_UNROLL
  for (int i = 0; i < kStages - 1; ++i) load(first + i);
  load_weights<T>(g, w, turned, reinterpret_cast<bfloat16*>(memory));

  SharedAddress row[T::kM];  // within a tile, of what this lane passes to load_matrices
  MTCKI_UNROLL
  for (int m = 0; m < T::kM; ++m) {
    const int pixel = (warp * T::kM + m) * 16 + lane % 16, line = pixel >> g.log_columns;
    const int which = line >> g.log_rows, p = line - (which << g.log_rows);
    const int slot = (which * g.in_rows + p) * g.in_columns + pixel - (line << g.log_columns);
    row[m] = static_cast<SharedAddress>(slot * T::kInPitch + (T::kIn == 8 ? 0 : (lane >> 4) * 16));
  }
  for (int tile = first; tile < last; ++tile) {
    cuda::wait_copies<kStages - 2>();
    __syncthreads();  // the tile and the weights are there, everybody is done with the one before
    load(tile + kStages - 1);
    const SharedAddress at = cuda::shared_address(tiles + (tile - first) % kStages * g.stage_bytes);
    SharedAddress pixel[T::kM];
    MTCKI_UNROLL
    for (int m = 0; m < T::kM; ++m) pixel[m] = at + row[m];
    Pixels<T> sums = {};
    multiply<T>(g, pixel, reinterpret_cast<const Registers<T>*>(memory), lane, sums);
    store_tile<T>(g, tile, warp, lane, sums, out, more);
  }
}

template <class T>
size_t shared_bytes(const Geometry& g) {
  return static_cast<size_t>(T::kWeightBytes + kStages * g.stage_bytes);
}

template <class T>
void run(const ConvProblem& d, const Tensor& in, const Tensor& w, const Tensor& more,
         const Tensor& out, bool turned) {
  const Geometry g = geometry<T>(d);
  static const bool allowed = [] {
    cuda::allow_shared(convolve_kernel<T>, most_shared<T>(shared_bytes<T>));
    return true;
  }();
  static_cast<void>(allowed);
  const size_t shared = shared_bytes<T>(g);
  const int fit = std::max(1, std::min(T::kBlocks, static_cast<int>(device().shared / shared)));
  const int blocks = std::min(g.tiles, std::max(1, device().multiprocessors) * fit);
  cuda::launch_small_early(in.nbytes(), convolve_kernel<T>, dim3(static_cast<unsigned>(blocks)),
                           dim3(T::kThreads), shared, g, in.data<bfloat16>(), w.data<bfloat16>(),
                           more.defined() ? more.data<bfloat16>() : nullptr, out.data<bfloat16>(),
                           turned);
}

// 8, 16, 32 or 64; 0: no kernel.
int rounded(int64_t channels) {
  if (channels <= 8) return 8;
  return channels == 16 || channels == 32 || channels == 64 ? static_cast<int>(channels) : 0;
}

template <int In, class Use>
void with_out(int out, const Use& use) {
  if (out == 64) return use(Whole<In, 64>());
  if (out == 32) return use(Whole<In, 32>());
  if (out == 16) return use(Whole<In, 16>());
  use(Whole<In, 8>());
}
template <class Use>
void with_whole(int in, int out, const Use& use) {
  if (in == 64) return with_out<64>(out, use);
  if (in == 32) return with_out<32>(out, use);
  if (in == 16) return with_out<16>(out, use);
  with_out<8>(out, use);
}

}  // namespace

bool supports_whole(const ConvProblem& d) {
  if (d.groups != 1 || d.dil_h != 1 || d.dil_w != 1 || d.r != 3 || d.s != 3 || d.pad_h != 1 ||
      d.pad_w != 1 || d.stride_h != 1 || d.stride_w != 1 || d.n <= 0 || d.c <= 0 || d.k <= 0 ||
      d.p <= 0 || d.q <= 0)
    return false;
  const int in = rounded(d.c), out = rounded(d.k);
  if (in == 0 || out == 0 || d.n * d.h * d.w >= (int64_t{1} << 31) || device().major < 8)
    return false;
  bool fits = false;
  for (const bool turned : {false, true})
    with_whole(turned ? out : in, turned ? in : out, [&](auto whole) {
      using T = decltype(whole);
      const bool both = shared_bytes<T>(geometry<T>(d)) <= device().shared;
      fits = turned ? fits && both : both;
    });
  return fits;
}

void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& residual,
             const Tensor& y) {
  with_whole(rounded(d.c), rounded(d.k),
             [&](auto whole) { run<decltype(whole)>(d, x, w, residual, y, false); });
}

void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                bool add) {
  ConvProblem turned = d;  // its input is gy
  std::swap(turned.c, turned.k);
  with_whole(rounded(turned.c), rounded(turned.k), [&](auto whole) {
    run<decltype(whole)>(turned, gy, w, add ? gx : Tensor(), gx, true);
  });
}

}  // namespace mtcki::conv_cuda::narrow
