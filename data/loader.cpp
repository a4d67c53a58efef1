#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/profiler.h"

namespace mtcki::data {

namespace {

// (value / 255 - mean) / std for every byte value, in the order of operations of f32
// ToTensor+Normalize.
std::vector<float> value_table(const Normalization& n, int64_t channels) {
  std::vector<float> table(static_cast<size_t>(channels) * 256);
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < 256; ++v) {
      float x = static_cast<float>(v) / 255.0f;
      if (!n.mean.empty())
        x = (x - static_cast<float>(n.mean[static_cast<size_t>(c)])) /
            static_cast<float>(n.std[static_cast<size_t>(c)]);
      table[static_cast<size_t>(c * 256 + v)] = x;
    }
  return table;
}

// One image: out[c,y,x] = table[in[c, y + dy, x' + dx]], zero bytes outside, x' mirrored when flip.
void convert_image(const uint8_t* in, float* out, const float* table, int64_t channels, int64_t h,
                   int64_t w, int64_t dy, int64_t dx, bool flip) {
  for (int64_t c = 0; c < channels; ++c, table += 256, in += h * w)
    for (int64_t y = 0; y < h; ++y, out += w) {
      const int64_t from_y = y + dy;
      if (from_y < 0 || from_y >= h) {
        std::fill(out, out + w, table[0]);
        continue;
      }
      const uint8_t* row = in + from_y * w;
      // Column of the padded crop before mirroring: x (or w-1-x), shifted by dx.
      const int64_t first = std::clamp<int64_t>(-dx, 0, w),
                    last = std::clamp<int64_t>(w - dx, 0, w);
      if (!flip) {
        for (int64_t x = 0; x < first; ++x) out[x] = table[0];
        for (int64_t x = first; x < last; ++x) out[x] = table[row[x + dx]];
        for (int64_t x = last; x < w; ++x) out[x] = table[0];
      } else {
        for (int64_t x = 0; x < first; ++x) out[w - 1 - x] = table[0];
        for (int64_t x = first; x < last; ++x) out[w - 1 - x] = table[row[x + dx]];
        for (int64_t x = last; x < w; ++x) out[w - 1 - x] = table[0];
      }
    }
}

}  // namespace

struct Loader::Impl {
  ImageSet set;
  LoaderOptions options;
  std::vector<float> table;
  int64_t batches = 0;

  // The running epoch. `order` is set before workers are let go and constant while they run.
  int64_t epoch = 0;
  std::vector<int64_t> order;  // empty: identity
  int64_t consumed = 0;        // the next batch that next() returns

  std::mutex mutex;
  std::condition_variable work, ready;
  std::vector<std::thread> threads;
  int64_t claimed = 0;  // the next batch that a worker takes
  int64_t busy = 0;     // workers inside make()
  bool paused = true, stop = false;
  std::map<int64_t, Batch> done;
  std::map<int64_t, std::exception_ptr> failed;

  int64_t window() const { return 2 * static_cast<int64_t>(threads.size()) + 1; }

  Batch make(int64_t b) const {
    const int64_t n = set.size(), begin = b * options.batch_size;
    const int64_t rows = std::min(options.batch_size, n - begin);
    const int64_t channels = set.images.size(1), h = set.images.size(2), w = set.images.size(3);
    Batch out{Tensor::empty({rows, channels, h, w}), Tensor::empty({rows}, DType::i64),
              Tensor::empty({rows}, DType::i64)};
    const uint8_t* pixels = set.images.data<uint8_t>();
    const int64_t* labels = set.labels.data<int64_t>();
    const Rng augment{options.seed, rng_stream("loader/augment"), static_cast<uint64_t>(epoch)};
    const int64_t image = channels * h * w;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = order.empty() ? begin + i : order[static_cast<size_t>(begin + i)];
      out.index.data<int64_t>()[i] = row;
      out.labels.data<int64_t>()[i] = labels[row];
      int64_t dy = 0, dx = 0;
      bool flip = false;
      if (options.pad > 0 || options.flip) {
        // Keyed by the image, not by its place in a batch: any batch size sees the same draw.
        const auto bits = augment.bits(static_cast<uint64_t>(row));
        const auto range = static_cast<uint64_t>(2 * options.pad + 1);
        dy = static_cast<int64_t>(bits[0] * range >> 32) - options.pad;
        dx = static_cast<int64_t>(bits[1] * range >> 32) - options.pad;
        flip = options.flip && (bits[2] >> 31) != 0;
      }
      convert_image(pixels + row * image, out.images.data<float>() + i * image, table.data(),
                    channels, h, w, dy, dx, flip);
    }
    return out;
  }

  void worker() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      work.wait(lock, [this] {
        return stop || (!paused && claimed < batches && claimed < consumed + window());
      });
      if (stop) return;
      const int64_t b = claimed++;
      ++busy;
      lock.unlock();
      Batch batch;
      std::exception_ptr error;
      try {
        batch = make(b);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      --busy;
      if (error) {
        failed[b] = error;
      } else {
        done[b] = std::move(batch);
      }
      ready.notify_all();
    }
  }
};

Loader::Loader(const ImageSet& set, const LoaderOptions& options)
    : impl_(std::make_unique<Impl>()) {
  Impl& s = *impl_;
  if (!set.images.defined() || set.images.rank() != 4 || set.images.dtype() != DType::u8 ||
      !set.images.is_plain())
    throw UsageError(str("Loader: images must be u8 [N,C,H,W], plain; got ",
                         set.images.defined() ? set.images.describe() : "none"));
  if (!set.labels.defined() || set.labels.dtype() != DType::i64 || set.labels.numel() != set.size())
    throw UsageError(str("Loader: labels must be i64 [", set.size(), "]"));
  if (options.batch_size < 1)
    throw UsageError(str("Loader: batch_size ", options.batch_size, " < 1"));
  if (options.pad < 0) throw UsageError(str("Loader: pad ", options.pad, " < 0"));
  if (options.threads < 0) throw UsageError(str("Loader: threads ", options.threads, " < 0"));
  const auto channels = static_cast<size_t>(set.images.size(1));
  const Normalization& n = options.normalization;
  if (n.mean.size() != n.std.size() || (!n.mean.empty() && n.mean.size() != channels))
    throw UsageError(str("Loader: images have ", channels, " channels, the normalisation has ",
                         n.mean.size(), " means and ", n.std.size(), " stds"));
  for (const double v : n.std)
    if (!(v > 0)) throw UsageError(str("Loader: std ", v, " must be positive"));
  s.set = set;
  s.options = options;
  s.table = value_table(n, set.images.size(1));
  s.batches = batches_per_epoch();
  for (int i = 0; i < options.threads; ++i) s.threads.emplace_back([&s] { s.worker(); });
}

Loader::~Loader() {
  {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->work.notify_all();
  for (std::thread& t : impl_->threads) t.join();
}

int64_t Loader::batches_per_epoch() const {
  const int64_t n = impl_->set.size(), b = impl_->options.batch_size;
  return impl_->options.drop_last ? n / b : (n + b - 1) / b;
}

void Loader::start_epoch(int64_t epoch, int64_t first_batch) {
  Impl& s = *impl_;
  if (first_batch < 0 || first_batch > s.batches)
    throw UsageError(str("Loader: batch ", first_batch, " of an epoch of ", s.batches));
  std::unique_lock<std::mutex> lock(s.mutex);
  s.paused = true;
  s.ready.wait(lock, [&s] { return s.busy == 0; });
  s.done.clear();
  s.failed.clear();
  s.epoch = epoch;
  s.order.clear();
  if (s.options.shuffle)
    s.order = randperm(s.set.size(), Rng{s.options.seed, rng_stream("loader/shuffle"),
                                         static_cast<uint64_t>(epoch)})
                  .to_vector<int64_t>();
  s.consumed = s.claimed = first_batch;
  s.paused = false;
  lock.unlock();
  s.work.notify_all();
}

Batch Loader::next() {
  Impl& s = *impl_;
  if (s.threads.empty()) {
    if (s.paused || s.consumed >= s.batches) return {};
    return s.make(s.consumed++);
  }
  const ProfileScope scope("data_wait", 0, 0);
  std::unique_lock<std::mutex> lock(s.mutex);
  if (s.paused || s.consumed >= s.batches) return {};
  const int64_t b = s.consumed;
  s.ready.wait(lock, [&s, b] { return s.done.count(b) || s.failed.count(b); });
  if (const auto bad = s.failed.find(b); bad != s.failed.end()) std::rethrow_exception(bad->second);
  Batch out = std::move(s.done[b]);
  s.done.erase(b);
  ++s.consumed;
  lock.unlock();
  s.work.notify_all();
  return out;
}

}  // namespace mtcki::data
