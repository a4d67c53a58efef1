#include <cmath>

#include "tensor/kernels/channel_walk.cuh"
#include "tensor/ops/update_kernels.h"
#include "tensor/ops/update_rules.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::kThreads;
using cuda::launch;

constexpr int64_t kChunk = 4096;  // elements of one block
constexpr int kPack = 4;          // elements that a thread moves at once
constexpr int kTensors = 64;      // of one launch: their table is an argument, 4 KiB at most

// Up to four tensors that walk together; the second may be bf16 beside f32. And a copy of the
// first, which may be bf16, too: element for element, or rows of `channels` at intervals of
// `padded`.
struct Entry {
  void *a = nullptr, *source = nullptr, *b = nullptr, *c = nullptr, *copy = nullptr;
  int64_t numel = 0;
  int32_t first_block = 0;
  bool narrow_source : 1 = false, narrow_copy : 1 = false;
  bool packed : 1 = false;  // kPack elements may be moved at once
  uint8_t channels = 0, padded = 0;
};
struct Table {
  Entry entries[kTensors];
  int count = 0;
};
struct Chunk {
  int entry;
  int64_t begin, end;
};
// What block `index` works on: the last entry that begins at or before it.
__device__ inline Chunk chunk_of(const Table& table, int index) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.entries[middle].first_block <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const Entry& e = table.entries[low];
  const int64_t begin = (index - e.first_block) * kChunk;
  return {low, begin, begin + kChunk < e.numel ? begin + kChunk : e.numel};
}

// f(T{}, table, blocks) for the entries of each dtype of `leads`; entry(i) describes tensor i.
template <class T, class MakeEntry, class F>
void for_tables_of(const TensorList& leads, const MakeEntry& entry, const F& f) {
  Table table;
  int64_t blocks = 0;
  const auto flush = [&] {
    if (table.count > 0) f(T(), table, dim3(static_cast<unsigned>(blocks)));
    table.count = 0;
    blocks = 0;
  };
  for (size_t i = 0; i < leads.size(); ++i) {
    const int64_t n = leads[i].numel();
    if (n == 0 || leads[i].dtype() != dtype_of<T>::value) continue;
    Entry& e = table.entries[table.count++];
    e = entry(i);
    e.numel = n;
    e.first_block = static_cast<int32_t>(blocks);
    blocks += (n + kChunk - 1) / kChunk;
    if (table.count == kTensors) flush();
  }
  flush();
}
template <class MakeEntry, class F>
void for_tables(const TensorList& leads, const MakeEntry& entry, const F& f) {
  for_tables_of<float>(leads, entry, f);
  for_tables_of<bfloat16>(leads, entry, f);
  for_tables_of<double>(leads, entry, f);
}

template <class T>
__device__ inline compute_t<T> source_value(const Entry& e, int64_t i) {
  using C = compute_t<T>;
  return e.narrow_source ? C(float(static_cast<const bfloat16*>(e.source)[i]))
                         : C(static_cast<const T*>(e.source)[i]);
}

template <class T>
__device__ inline void store_copy(const Entry& e, int64_t i, T value) {
  const int64_t at = e.padded ? i / e.channels * e.padded + i % e.channels : i;
  if (e.narrow_copy) {
    static_cast<bfloat16*>(e.copy)[at] = bfloat16(static_cast<float>(value));
  } else {
    static_cast<T*>(e.copy)[at] = value;
  }
}

// F: prepare() reads the scalars, once per block, into a Factors of doubles; then
// F::apply(factors, a, source, b, c) updates a, b, c of one element. b, c may be absent.
template <class T, class F>
__global__ void __launch_bounds__(kThreads, 2) update_kernel(Table table, F f) {
  using C = compute_t<T>;
  __shared__ double shared[sizeof(typename F::Factors) / sizeof(double)];
  auto* prepared = reinterpret_cast<typename F::Factors*>(shared);
  if (threadIdx.x == 0) *prepared = f.prepare();
  __syncthreads();
  const typename F::template In<C> in(*prepared);
  const Chunk chunk = chunk_of(table, static_cast<int>(blockIdx.x));
  const Entry& e = table.entries[chunk.entry];
  T *pa = static_cast<T*>(e.a), *pb = static_cast<T*>(e.b), *pc = static_cast<T*>(e.c);
  const int64_t packs = e.packed ? (chunk.end - chunk.begin) / kPack : 0;
  for (int64_t p = threadIdx.x; p < packs; p += kThreads) {
    const int64_t i = chunk.begin + p * kPack;
    using Pack = Values<T, kPack>;
    using Narrow = Values<bfloat16, kPack>;
    Pack a = load_values<kPack>(pa, i), source{}, b{}, c{};
    Narrow narrow{};
    if (e.narrow_source) {
      narrow = load_values<kPack>(static_cast<const bfloat16*>(e.source), i);
    } else {
      source = load_values<kPack>(static_cast<const T*>(e.source), i);
    }
    if (pb) b = load_values<kPack>(pb, i);
    if (pc) c = load_values<kPack>(pc, i);
    for (int k = 0; k < kPack; ++k) {
      C x = a.v[k], y = b.v[k], z = c.v[k];
      in.apply(&x, e.narrow_source ? C(float(narrow.v[k])) : C(source.v[k]), &y, &z);
      a.v[k] = T(x);
      b.v[k] = T(y);
      c.v[k] = T(z);
      narrow.v[k] = bfloat16(static_cast<float>(a.v[k]));
    }
    store_values(pa, i, a);
    if (pb) store_values(pb, i, b);
    if (pc) store_values(pc, i, c);
    if (e.copy && e.narrow_copy) {
      store_values(static_cast<bfloat16*>(e.copy), i, narrow);
    } else if (e.copy) {
      store_values(static_cast<T*>(e.copy), i, a);
    }
  }
  for (int64_t i = chunk.begin + packs * kPack + threadIdx.x; i < chunk.end; i += kThreads) {
    C a = pa[i], b = pb ? C(pb[i]) : C(0), c = pc ? C(pc[i]) : C(0);
    in.apply(&a, source_value<T>(e, i), &b, &c);
    pa[i] = T(a);
    if (e.copy) store_copy(e, i, T(a));
    if (pb) pb[i] = T(b);
    if (pc) pc[i] = T(c);
  }
}

// A rule with its scalars, which may live on the device.
template <class Rule>
struct Stepped {
  using Factors = typename Rule::Factors;
  template <class C>
  using In = typename Rule::template In<C>;
  Rule rule;
  ScalarArgument lr, step, grad_scale;
  MTCKI_HD Factors prepare() const {
    return rule.factors(static_cast<double>(lr.get()), static_cast<double>(step.get()),
                        static_cast<double>(grad_scale.get()));
  }
};
struct Averaged : EmaRule {
  ScalarArgument decay;
  MTCKI_HD Factors prepare() const { return {static_cast<double>(decay.get())}; }
};

bool narrow(const Tensor& source, const Tensor& lead) { return source.dtype() != lead.dtype(); }

template <class F>
void update(const TensorList& a, const TensorList& source, const TensorList& b, const TensorList& c,
            const F& f, const KeptCopies* copies = nullptr) {
  static_assert(sizeof(Table) + sizeof(F) <= 4096);
  const auto raw = [](const TensorList& list, size_t i) {
    return list.empty() ? nullptr : list[i].raw();
  };
  for_tables(
      a,
      [&](size_t i) {
        Entry e;
        e.a = a[i].raw();
        e.source = source[i].raw();
        e.b = raw(b, i);
        e.c = raw(c, i);
        e.narrow_source = narrow(source[i], a[i]);
        if (copies && copies->of(i).tensor.defined()) {
          const KeptCopies::Copy& copy = copies->of(i);
          e.copy = copy.tensor.raw();
          e.narrow_copy = narrow(copy.tensor, a[i]);
          e.channels = static_cast<uint8_t>(copy.channels);
          e.padded = static_cast<uint8_t>(copy.padded);
        }
        e.packed = e.padded == 0;
        for (const void* p : {e.a, e.source, e.b, e.c, e.copy})
          e.packed = e.packed && reinterpret_cast<uintptr_t>(p) % 16 == 0;
        return e;
      },
      [&](auto type, const Table& table, dim3 blocks) {
        launch(update_kernel<decltype(type), F>, blocks, kThreads, 0, table, f);
      });
}

// ---- norms ----

// Block i of the launch writes partial[i].
template <class T>
__global__ void __launch_bounds__(kThreads) squares_kernel(Table table, TwoSums* partial) {
  __shared__ double shared[kThreads * sizeof(TwoSums) / sizeof(double)];
  const Chunk chunk = chunk_of(table, static_cast<int>(blockIdx.x));
  const T* x = static_cast<const T*>(table.entries[chunk.entry].a);
  TwoSums own[1];
  own[0] = TwoSums{};
  for (int64_t i = chunk.begin + threadIdx.y; i < chunk.end; i += kThreads) {
    const double v = static_cast<double>(compute_t<T>(x[i]));
    own[0].a += v * v;
  }
  merge_block<1>(own, reinterpret_cast<TwoSums*>(shared));
  if (threadIdx.y == 0) partial[blockIdx.x] = own[0];
}

__global__ void __launch_bounds__(kThreads)
    finish_norm_kernel(const TwoSums* partial, int64_t parts, double max_norm, float* norm,
                       float* scale) {
  __shared__ double shared[kThreads * sizeof(TwoSums) / sizeof(double)];
  TwoSums own[1];
  own[0] = TwoSums{};
  for (int64_t i = threadIdx.y; i < parts; i += kThreads) own[0].merge(partial[i]);
  merge_block<1>(own, reinterpret_cast<TwoSums*>(shared));
  if (threadIdx.y != 0) return;
  const double value = std::sqrt(own[0].a), by = max_norm / (value + 1e-6);
  *norm = static_cast<float>(value);
  if (scale) *scale = static_cast<float>(by > 1.0 ? 1.0 : by);  // a NaN stays
}

}  // namespace

void sgd_update_cuda(const TensorList& params, const TensorList& grads, const TensorList& buffers,
                     const SgdUpdate& u, const KeptCopies& copies) {
  update(params, grads, buffers, {},
         Stepped<SgdRule>{SgdRule(u, !buffers.empty()), u.lr.argument(), u.step.argument(),
                          u.grad_scale.argument()},
         &copies);
}

void adam_update_cuda(const TensorList& params, const TensorList& grads, const TensorList& exp_avg,
                      const TensorList& exp_avg_sq, const AdamUpdate& u, const KeptCopies& copies) {
  update(
      params, grads, exp_avg, exp_avg_sq,
      Stepped<AdamRule>{AdamRule(u), u.lr.argument(), u.step.argument(), u.grad_scale.argument()},
      &copies);
}

void ema_update_cuda(const TensorList& dst, const TensorList& src, const Scalar& decay) {
  update(dst, src, {}, {}, Averaged{{}, decay.argument()});
}

void global_norm_cuda(const TensorList& tensors, const Tensor& norm, const Tensor& scale,
                      double max_norm) {
  int64_t parts = 0;
  for (const Tensor& t : tensors) parts += (t.numel() + kChunk - 1) / kChunk;
  const Tensor partial =
      Tensor::empty({std::max<int64_t>(1, 2 * parts)}, DType::f64, norm.device());
  TwoSums* next = static_cast<TwoSums*>(partial.raw());
  for_tables(
      tensors,
      [&](size_t i) {
        Entry e;
        e.a = tensors[i].raw();
        return e;
      },
      [&](auto type, const Table& table, dim3 blocks) {
        launch(squares_kernel<decltype(type)>, blocks, dim3(1, kThreads), 0, table, next);
        next += blocks.x;
      });
  launch(finish_norm_kernel, dim3(1), dim3(1, kThreads), 0,
         static_cast<const TwoSums*>(partial.raw()), parts, max_norm, norm.data<float>(),
         scale.defined() ? scale.data<float>() : nullptr);
}

}  // namespace mtcki
