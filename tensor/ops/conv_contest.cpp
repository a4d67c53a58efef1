#include "tensor/ops/conv_contest.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/cuda/runtime.h"

namespace mtcki::conv_cuda {

namespace {

constexpr int kWarmUp = 2, kRuns = 7;

double microseconds(const std::function<void()>& work) {
  std::vector<double> runs;
  for (int i = 0; i < kWarmUp + kRuns; ++i) {
    cuda::Event begin, end;
    begin.record();
    work();
    end.record();
    end.wait();
    if (i >= kWarmUp) runs.push_back(end.microseconds_since(begin));
  }
  std::nth_element(runs.begin(), runs.begin() + kRuns / 2, runs.end());
  return runs[kRuns / 2];
}

}  // namespace

bool first_is_quicker(const std::string& key, const std::function<void()>& first,
                      const std::function<bool()>& second) {
  static std::mutex mutex;
  static auto* winners = new std::map<std::string, bool>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = winners->find(key);
  if (known != winners->end()) return known->second;
  if (cuda::capturing()) return true;
  const bool wins = !second() || microseconds(first) <= microseconds([&] { second(); });
  return winners->emplace(key, wins).first->second;
}

}  // namespace mtcki::conv_cuda
