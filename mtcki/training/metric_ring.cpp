#include "mtcki/training/metric_ring.h"

#include <algorithm>
#include <cmath>

#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"

namespace mtcki {

MetricRing MetricRing::deferred(Device device, int64_t rows) {
  MetricRing ring;
  ring.rows_ = std::max<int64_t>(1, rows);
  ring.row_ = Tensor::zeros({kColumns}, DType::f32, device);
  ring.ring_ = Tensor::zeros({ring.rows_, kColumns}, DType::f32, device);
  return ring;
}

int64_t MetricRing::column(const Column& wanted) {
  for (size_t i = 0; i < columns_.size(); ++i)
    if (columns_[i].name == wanted.name) return static_cast<int64_t>(i);
  if (std::ssize(columns_) == kColumns)
    throw Error(str("MetricRing: more than ", kColumns, " values; ", wanted.name, " has no place"));
  columns_.push_back(wanted);
  return std::ssize(columns_) - 1;
}

void MetricRing::put(const std::string& name, const Tensor& value, const char* hint,
                     const char* term) {
  if (is_deferred()) {
    const int64_t c = column({name, term ? term : name, hint ? hint : ""});
    row_.slice(c, c + 1).copy_(value.reshape({1}));
    host_work([this, c] { current_.push_back(c); });
    return;
  }
  const double v = value.item();
  if (hint && !std::isfinite(v)) {
    now_.clear();
    throw NumericError(str("loss term ", term ? term : name, " is ", v, "; ", hint));
  }
  now_.emplace_back(name, v);
}

void MetricRing::commit(int64_t step) {
  if (!is_deferred()) {
    last_ = std::move(now_);
    now_.clear();
    return;
  }
  if (full()) throw Error("MetricRing: full; read() comes first");
  const int64_t i = std::ssize(kept_);
  ring_.slice(i, i + 1).copy_(row_.reshape({1, kColumns}));
  kept_.push_back({step, std::move(current_)});
  current_.clear();
}

Values MetricRing::read() {
  if (kept_.empty()) return last_;
  const std::vector<float> values = ring_.slice(0, std::ssize(kept_)).to_vector<float>();
  const std::vector<Kept> kept = std::move(kept_);
  kept_.clear();
  for (size_t i = 0; i < kept.size(); ++i) {
    last_.clear();
    for (const int64_t c : kept[i].columns) {
      const double v = values[i * kColumns + static_cast<size_t>(c)];
      const Column& column = columns_[static_cast<size_t>(c)];
      if (!column.hint.empty() && !std::isfinite(v))
        throw NumericError(str("loss term ", column.term, " is ", v, " at step ", kept[i].step,
                               " (steps ", kept.front().step, " to ", kept.back().step,
                               " were read together); ", column.hint));
      last_.emplace_back(column.name, v);
    }
  }
  return last_;
}

}  // namespace mtcki
