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
  Impl(const ImageSet& images, const LoaderOptions& o)
      : set(images), options(o), planner(images, o), batches(planner.batches_per_epoch()) {}

  ImageSet set;
  LoaderOptions options;
  BatchPlanner planner;  // its epoch is set before workers are let go
  int64_t batches;
  std::vector<float> table;

  // The running epoch.
  int64_t consumed = 0;  // the next batch that next() returns

  std::mutex mutex;
  std::condition_variable work, ready;
  std::vector<std::thread> threads;
  int64_t claimed = 0;  // the next batch that a worker takes
  int64_t busy = 0;     // workers inside make()
  bool paused = true, stop = false;
  std::map<int64_t, Batch> done;
  std::map<int64_t, std::exception_ptr> failed;

  int64_t window() const { return 2 * std::ssize(threads) + 1; }

  // The i-th image of a pick, augmented and normalised.
  void convert(const Pick& pick, int64_t i, float* out) const {
    const int64_t channels = set.images.size(1), h = set.images.size(2), w = set.images.size(3);
    const int64_t row = pick.index.data<int64_t>()[i];
    int64_t offset[2] = {0, 0};
    for (int64_t k = 0; k < 2 && pick.offset.defined(); ++k)
      offset[k] = pick.offset.data<int32_t>()[2 * i + k] - options.pad;
    convert_image(set.images.data<uint8_t>() + row * channels * h * w, out, table.data(), channels,
                  h, w, offset[0], offset[1], pick.flip.defined() && pick.flip.data<bool>()[i]);
  }

  Batch make(int64_t b) const {
    const BatchPlan plan = planner.at(b);
    const int64_t rows = plan.labels.size(0);
    const int64_t channels = set.images.size(1), h = set.images.size(2), w = set.images.size(3);
    const Batch out{Tensor::empty({rows, channels, h, w}), plan.labels, plan.own.index,
                    plan.view_row};
    const int64_t image = channels * h * w;
    for (int64_t i = 0; i < rows; ++i) convert(plan.own, i, out.images.data<float>() + i * image);
    if (!plan.share.defined()) return out;
    std::vector<float> second(static_cast<size_t>(image));
    const int64_t shares = plan.share.numel() / rows;  // of an image: one, or one per pixel
    for (int64_t i = 0; i < rows; ++i) {
      convert(plan.second, i, second.data());
      float* x = out.images.data<float>() + i * image;
      const float* share = plan.share.data<float>() + i * shares;
      // One operation after the other: as on the GPU, each is rounded.
      const float* y = second.data();
      for (int64_t p = 0; p < image; ++p) x[p] -= y[p];
      for (int64_t p = 0; p < image; ++p) x[p] *= share[p % shares];
      for (int64_t p = 0; p < image; ++p) x[p] += y[p];
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
    : impl_(std::make_unique<Impl>(set, options)) {
  Impl& s = *impl_;
  s.table = value_table(options.normalization, set.images.size(1));
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

int64_t Loader::batches_per_epoch() const { return impl_->batches; }

void Loader::start_epoch(int64_t epoch, int64_t first_batch) {
  Impl& s = *impl_;
  if (first_batch < 0 || first_batch > s.batches)
    throw UsageError(str("Loader: batch ", first_batch, " of an epoch of ", s.batches));
  std::unique_lock<std::mutex> lock(s.mutex);
  s.paused = true;
  s.ready.wait(lock, [&s] { return s.busy == 0; });
  s.done.clear();
  s.failed.clear();
  s.planner.start_epoch(epoch);
  s.consumed = s.claimed = first_batch;
  s.paused = false;
  lock.unlock();
  s.work.notify_all();
}

Batch Loader::next() {
  Impl& s = *impl_;
  if (s.paused)  // between calls only before the first start_epoch()
    throw UsageError("Loader: next() before start_epoch(); which epoch is it?");
  if (s.threads.empty()) {
    if (s.consumed >= s.batches) return {};
    return s.make(s.consumed++);
  }
  const ProfileScope scope("data_wait", 0, 0);
  std::unique_lock<std::mutex> lock(s.mutex);
  if (s.consumed >= s.batches) return {};
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
