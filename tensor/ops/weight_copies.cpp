#include "tensor/ops/weight_copies.h"

#include <atomic>
#include <compare>
#include <map>
#include <mutex>

#include "tensor/cuda/runtime.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/ops/cast_kernels.h"
#include "tensor/ops/conv/cuda_kernels.h"
#include "tensor/storage_freed.h"

namespace mtcki {

namespace {

constexpr int64_t kAsItIs = -1;

struct Key {
  const char* weight;  // its address; first, so that the copies of a range of memory are together
  int64_t rows = -1, columns = -1, taps = -1;
  int64_t padded = -1;  // channels of the copy, or kAsItIs
  bool plain = false;
  DType from{}, to{};
  int stream = -1;
  auto operator<=>(const Key&) const = default;
};

Key key_of(const Tensor& w, DType to, int64_t padded) {
  const bool image = w.rank() == 4;
  const int64_t taps = image ? w.size(2) * w.size(3) : 1, rows = w.rank() > 0 ? w.size(0) : 1;
  return {static_cast<const char*>(w.raw()),
          rows,
          rows * taps > 0 ? w.numel() / (rows * taps) : 0,
          taps,
          padded,
          w.is_plain() && taps != 1,  // of a 1x1 kernel both layouts are the same
          w.dtype(),
          to,
          cuda::stream_index()};
}

struct Entry {
  Tensor copy;
  uint32_t version = 0;   // of the weight that the copy equals
  uint64_t epoch = 0;     // when it was made
  bool captured = false;  // made by a graph: there is nothing in it before the graph is launched
  bool kept = false;      // updates write it
  uint32_t kept_in_graphs = 0;  // of the weight's captured writes, those that write the copy, too
  uint64_t guarded = 0;         // the capture that looks at it before its launches

  // Whether the weight's version tells all that graphs did to it.
  bool follows(const Tensor& w) const {
    return kept && !captured && kept_in_graphs == w.captured_writes();
  }
};

using Convert = void (*)(const Tensor& w, const Tensor& copy);

class Copies {
 public:
  Tensor get(const Key& key, const Tensor& w, const Shape& shape, Layout layout, bool constant,
             Convert convert) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Entry& e = entries_[key];
    count_ = entries_.size();
    const bool capturing = cuda::capturing(), follows = e.follows(w);
    const uint64_t epoch = cuda::graph_epoch();
    if (capturing && follows && records_host_work()) {
      if (e.guarded != epoch)
        host_work([=, this] { get(key, w, shape, layout, constant, convert); });
      e.guarded = epoch;
      return e.copy;
    }
    const bool lasting = !e.captured && (constant || (follows && !capturing));
    if (e.copy.defined() && e.version == w.version() && (e.epoch == epoch || lasting))
      return e.copy;
    if (!e.copy.defined()) e.copy = Tensor::empty(shape, key.to, w.device(), layout);
    convert(w, e.copy);
    ++made_;
    e.version = w.version();
    e.epoch = epoch;
    e.captured = capturing;
    return e.copy;
  }

  // The entry whose copy an update in the order of the weight's memory can write.
  Entry* to_keep(const Tensor& w, KeptCopies::Copy* copy) {
    if (count_.load(std::memory_order_relaxed) == 0) return nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    const char* address = static_cast<const char*>(w.raw());
    for (auto it = entries_.lower_bound(Key{address});
         it != entries_.end() && it->first.weight == address; ++it) {
      const Key& key = it->first;
      const bool elements = key.padded == kAsItIs;
      const bool narrow = key.columns <= 255 && key.padded <= 255;  // what the kernels' tables hold
      const bool fits = key.from == w.dtype() && (key.to == w.dtype() || key.to == DType::bf16) &&
                        key.rows * key.columns * key.taps == w.numel() &&
                        key.stream == cuda::stream_index() && (elements || (!key.plain && narrow));
      if (!fits) continue;
      *copy = {it->second.copy, elements ? 0 : key.columns, elements ? 0 : key.padded};
      return &it->second;
    }
    return nullptr;
  }

  void note_update(Entry& e, const Tensor& w, bool was_equal) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool capturing = cuda::capturing();
    e.kept = true;
    if (capturing) ++e.kept_in_graphs;
    if (!capturing || was_equal) e.version = w.version();
  }

  void forget(const void* data, size_t bytes) {
    if (count_.load(std::memory_order_relaxed) == 0) return;
    const char* begin = static_cast<const char*>(data);
    std::vector<Tensor> freed;  // after the lock: each of them calls forget() again
    const std::lock_guard<std::mutex> lock(mutex_);
    auto it = entries_.lower_bound(Key{begin});
    while (it != entries_.end() && it->first.weight < begin + bytes) {
      freed.push_back(std::move(it->second.copy));
      it = entries_.erase(it);
    }
    count_ = entries_.size();
  }

  size_t size() const { return count_; }
  uint64_t made() const { return made_; }

 private:
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::atomic<size_t> count_{0};
  std::atomic<uint64_t> made_{0};
};

Copies& copies() {
  static Copies* const all = [] {
    on_cuda_storage_freed([](const void* data, size_t bytes) { copies().forget(data, bytes); });
    return new Copies;  // never destroyed: tensors of static lifetime come later
  }();
  return *all;
}

}  // namespace

Tensor ohwi_weight(const Tensor& w, DType dtype, int64_t padded, bool constant) {
  const Key key = key_of(w, dtype, padded);
  const bool aligned = reinterpret_cast<uintptr_t>(w.raw()) % 16 == 0;
  if (!key.plain && padded == key.columns) {
    if (dtype != w.dtype()) return cast_weight(w, dtype, constant);
    if (aligned) return w;
  }
  return copies().get(key, w, Shape{key.rows, key.taps, padded}, Layout::plain, constant,
                      conv_cuda::weight_to_ohwi);
}

Tensor cast_weight(const Tensor& w, DType dtype, bool constant) {
  if (w.dtype() == dtype) return w;
  return copies()
      .get(key_of(w, dtype, kAsItIs), w, Shape{w.numel()}, Layout::plain, constant,
           [](const Tensor& from, const Tensor& to) { cast_cuda(from.in_memory_order(), to); })
      .ordered_as(w);
}

KeptCopies::KeptCopies(const std::vector<Tensor>& weights) : copies_(weights.size()) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& w = weights[i];
    if (w.device().is_cpu() || w.numel() == 0) continue;
    if (Entry* e = copies().to_keep(w, &copies_[i]))
      written_.push_back({w, e, e->version == w.version()});
  }
}

void KeptCopies::written() {
  const auto note = [](const std::vector<Written>& list) {
    for (const Written& u : list)
      copies().note_update(*static_cast<Entry*>(u.entry), u.weight, u.was_equal);
  };
  note(written_);
  if (written_.empty() || !records_host_work()) return;
  // Every launch writes weights and copies alike. The weights are held, and with them the entries.
  host_work([note, list = written_] { note(list); });
}

size_t weight_copies() { return copies().size(); }
uint64_t weight_conversions() { return copies().made(); }

}  // namespace mtcki
