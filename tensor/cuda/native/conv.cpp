#include "tensor/cuda/conv.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "tensor/cuda/native/check.h"
#include "tensor/cuda/native/plan_file.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/timing.h"
#include "tensor/tensor.h"

namespace mtcki::cuda {

namespace {

struct Buffers {
  void *x, *w, *y;
};

// One cuDNN handle per stream.
class Handles {
 public:
  cudnnHandle_t get() {
    cudnnHandle_t& h = handles_[stream_index()];
    if (!h) {
      forbid_while_capturing("the first convolution of a stream");
      cudnnHandle_t fresh = nullptr;
      check(cudnnCreate(&fresh), "cudnnCreate");
      check(cudnnSetStream(fresh, static_cast<cudaStream_t>(stream())), "cudnnSetStream");
      h = fresh;
    }
    return h;
  }

 private:
  std::map<int, cudnnHandle_t> handles_;
};

// What is known of one convolution: the plan in use, and what to try when it fails.
struct Entry {
  std::vector<Candidate> untried;  // best last
  std::optional<Plan> plan;
};

class Convolutions {
 public:
  Convolutions() : file_(PlanFile::default_path()), device_(device_of_process(current_device())) {
    keep_nvrtc_loaded();
    const DeviceInfo d = device_info(current_device());
    gpu_ = {d.major, d.minor, d.multiprocessors, d.name, d.driver_version};
  }

  bool run(const Convolution& c, bool autotune, const Buffers& b, std::string* kernel) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::string key = plan_key(c, gpu_);
    auto it = entries_.find(key);
    if (it == entries_.end()) {
      forbid_while_capturing("the first convolution of a new shape (warm up before the capture)");
      it = entries_.emplace(key, find(c, key, autotune, b)).first;
    }
    Entry& e = it->second;
    while (e.plan) {
      try {
        execute(*e.plan, b);
        if (kernel) *kernel = e.plan->name();
        return true;
      } catch (const CudnnError&) {
        if (capturing()) throw;
        synchronize();  // a device in error refuses every plan: throws what happened to it
        e.plan = next(e.untried);
      }
    }
    return false;
  }

 private:
  // The plan of the last candidate that can be built; those that cannot are dropped.
  std::optional<Plan> next(std::vector<Candidate>& untried) {
    while (!untried.empty()) {
      const Candidate c = std::move(untried.back());
      untried.pop_back();
      try {
        Plan p = build_plan(c, device_);
        if (p.workspace <= kConvWorkspace) return p;
      } catch (const CudnnError&) {
      }
    }
    return std::nullopt;
  }

  Entry find(const Convolution& c, const std::string& key, bool autotune, const Buffers& b) {
    Entry e;
    try {
      const Descriptor graph = conv_graph(c);
      const std::optional<StoredPlan> stored = file_.find(key);
      const bool tune = autotune && !stored;
      e.untried = candidates(c, graph, device_);
      std::reverse(e.untried.begin(), e.untried.end());
      if (tune) return fastest(c, std::move(e.untried), key, b);
      if (stored) use_stored(graph, c, stored->choice, e.untried);
    } catch (const CudnnError&) {
      // A graph that cuDNN does not know has no plan; what was found before stays.
    }
    e.plan = next(e.untried);
    return e;
  }

  void use_stored(const Descriptor& graph, const Convolution& c, const EngineChoice& choice,
                  std::vector<Candidate>& untried) {
    const Candidate candidate = from_choice(graph, device_, choice);
    if (allowed(c, candidate)) untried.push_back(candidate);
  }

  // Times every candidate on the operands at hand; the result is overwritten by the run after it.
  // What accumulates does so elsewhere. The good ones are timed again, in the opposite order: clocks
  // move meanwhile, and other programs may use the GPU. A choice whose two times differ is not kept.
  Entry fastest(const Convolution& c, std::vector<Candidate> untried, const std::string& key,
                Buffers b) {
    const ConvProblem& d = c.problem;
    Tensor elsewhere;
    if (c.accumulate) {
      elsewhere = Tensor::zeros({d.n, d.c, d.h, d.w}, c.dtype, Device::cuda(current_device()));
      b.x = elsewhere.raw();
    }
    struct Timed {
      Candidate candidate;
      double us, first_us;
    };
    double best = 0;
    std::vector<Timed> timed;
    const auto time = [&](Candidate candidate) -> double {  // 0: it cannot be run
      try {
        std::vector<Candidate> one{std::move(candidate)};
        const std::optional<Plan> p = next(one);
        return p ? microseconds_of([&] { execute(*p, b); }, best) : 0;
      } catch (const CudnnError&) {
      } catch (const OutOfMemoryError&) {  // no room for its workspace
      }
      return 0;
    };
    for (; !untried.empty(); untried.pop_back()) {
      const double us = time(untried.back());
      if (us <= 0) continue;
      timed.push_back({untried.back(), us, us});
      best = best > 0 ? std::min(best, us) : us;
    }
    constexpr double kWorthwhile = 1.5, kSame = 1.3;
    const double first_best = best;
    for (auto it = timed.rbegin(); it != timed.rend(); ++it) {
      if (it->first_us > kWorthwhile * first_best) continue;
      const double again = time(it->candidate);
      if (again > 0) it->us = std::min(it->us, again);
      const bool same = again > 0 && std::max(it->first_us, again) <= kSame * it->us;
      if (!same) it->first_us = 0;  // not to be kept
    }
    std::stable_sort(timed.begin(), timed.end(),
                     [](const Timed& a, const Timed& o) { return a.us > o.us; });
    Entry e;
    for (const Timed& t : timed) e.untried.push_back(t.candidate);
    while (e.untried.size() > 0 && !e.plan) {
      const Timed& t = timed[e.untried.size() - 1];
      std::vector<Candidate> one{std::move(e.untried.back())};
      e.untried.pop_back();
      e.plan = next(one);
      if (e.plan && t.first_us > 0) file_.put(key, {e.plan->choice, e.plan->workspace, t.us});
    }
    return e;
  }

  void execute(const Plan& p, const Buffers& b) {
    const Tensor workspace =
        p.workspace ? Tensor::empty({p.workspace}, DType::u8, Device::cuda(current_device()))
                    : Tensor();
    const Descriptor pack =
        Descriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
            .set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                 std::vector<int64_t>{kTensorX, kTensorW, kTensorY})
            .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::vector<void*>{b.x, b.w, b.y})
            .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace.raw())
            .finalize("variant pack");
    check(cudnnBackendExecute(handles_.get(), p.descriptor.raw(), pack.raw()), "execute");
  }

  std::mutex mutex_;
  PlanFile file_;
  Descriptor device_;
  Gpu gpu_;
  Handles handles_;
  std::map<std::string, Entry> entries_;
};

}  // namespace

bool convolve(const Convolution& c, bool autotune, void* x, void* w, void* y, std::string* kernel) {
  static auto* convolutions = new Convolutions;  // never destroyed: cuDNN may be gone by then
  return convolutions->run(c, autotune, {x, w, y}, kernel);
}

}  // namespace mtcki::cuda
