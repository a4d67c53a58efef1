#include "tensor/ops/weight_copies.h"

#include <atomic>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "tensor/cuda/runtime.h"
#include "tensor/ops/cast_kernels.h"
#include "tensor/ops/conv_cuda.h"

namespace mtcki {

namespace {

// Address of the weight, its rows, columns and taps, form of the copy (padded channels; -1: as it
// is), dtypes, stream.
using Key = std::tuple<const char*, int64_t, int64_t, int64_t, int64_t, DType, DType, int>;
struct Entry {
  Tensor copy;
  uint32_t version = 0;
  uint64_t epoch = 0;
  bool captured = false;  // made by a graph: there is nothing in it before the graph is launched
};

class Copies {
 public:
  template <class Convert>
  Tensor get(const Key& key, const Tensor& w, const Shape& shape, bool constant,
             const Convert& convert) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Entry& e = entries_[key];
    count_ = entries_.size();
    const uint64_t epoch = cuda::graph_epoch();
    if (e.copy.defined() && e.version == w.version() &&
        (e.epoch == epoch || (constant && !e.captured)))
      return e.copy;
    if (!e.copy.defined()) e.copy = Tensor::empty(shape, std::get<6>(key), w.device());
    convert(w, e.copy);
    e.version = w.version();
    e.epoch = epoch;
    e.captured = cuda::capturing();
    return e.copy;
  }

  void forget(const void* data, size_t bytes) {
    if (count_.load(std::memory_order_relaxed) == 0) return;
    const char* begin = static_cast<const char*>(data);
    std::vector<Tensor> freed;  // after the lock: each of them calls forget() again
    const std::lock_guard<std::mutex> lock(mutex_);
    auto it = entries_.lower_bound(Key{begin, -1, -1, -1, -1, DType{}, DType{}, -1});
    while (it != entries_.end() && std::get<0>(it->first) < begin + bytes) {
      freed.push_back(std::move(it->second.copy));
      it = entries_.erase(it);
    }
    count_ = entries_.size();
  }

  size_t size() const { return count_; }

 private:
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::atomic<size_t> count_{0};
};

Copies& copies() {
  static auto* c = new Copies;  // never destroyed: tensors of static lifetime come later
  return *c;
}

}  // namespace

Tensor ohwi_weight(const Tensor& w, DType dtype, int64_t padded, bool constant) {
  const int64_t k = w.size(0), c = w.size(1), taps = w.size(2) * w.size(3);
  const bool aligned = reinterpret_cast<uintptr_t>(w.raw()) % 16 == 0;
  if (taps == 1 && padded == c && dtype == w.dtype() && aligned) return w.reshape({k, 1, c});
  const Key key{static_cast<const char*>(w.raw()),
                k,
                c,
                taps,
                padded,
                w.dtype(),
                dtype,
                cuda::stream_index()};
  return copies().get(key, w, Shape{k, taps, padded}, constant, conv_cuda::weight_to_ohwi);
}

Tensor cast_weight(const Tensor& w, DType dtype, bool constant) {
  if (w.dtype() == dtype) return w;
  const Key key{static_cast<const char*>(w.raw()),
                w.numel(),
                1,
                1,
                -1,
                w.dtype(),
                dtype,
                cuda::stream_index()};
  return copies().get(key, w, w.shape(), constant, cast_cuda);
}

void forget_weight_copies(const void* data, size_t bytes) { copies().forget(data, bytes); }
size_t weight_copies() { return copies().size(); }

}  // namespace mtcki
