// MetricRing: losses and metrics of steps. Read at once, each value is there, and checked, before
// the step goes on. Deferred, a step leaves its values in device scalars; rows of them are kept and
// read together, so that the host never waits for the device inside a step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/log/run_log.h"
#include "tensor/tensor.h"

namespace mtcki {

class MetricRing {
 public:
  MetricRing() = default;  // read at once
  // rows: steps that can wait to be read.
  static MetricRing deferred(Device device, int64_t rows);
  bool is_deferred() const { return row_.defined(); }

  // Inside a step: a scalar of any floating type. With a hint, a value that is not finite is a
  // NumericError "loss term TERM is nan; HINT", thrown at once or by read(). term: name if null.
  void put(const std::string& name, const Tensor& value, const char* hint = nullptr,
           const char* term = nullptr);

  // Ends the step.
  void commit(int64_t step);
  bool full() const { return is_deferred() && std::ssize(kept_) == rows_; }
  // Values of the last step. Deferred: checks all that were kept, and forgets them.
  Values read();
  // Forgets what was not read, e.g. after an error.
  void drop() { current_.clear(), now_.clear(), kept_.clear(); }

 private:
  static constexpr int64_t kColumns = 32;
  struct Column {
    std::string name, term, hint;
  };
  struct Kept {
    int64_t step;
    std::vector<int64_t> columns;
  };
  int64_t column(const Column& wanted);

  Tensor row_, ring_;  // f32 [kColumns], [rows, kColumns]
  int64_t rows_ = 1;
  std::vector<Column> columns_;
  std::vector<int64_t> current_;
  std::vector<Kept> kept_;
  Values now_, last_;
};

}  // namespace mtcki
