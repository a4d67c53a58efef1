// Confusion matrix of a classifier on the real test set: which classes it takes for which.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

struct ConfusionMatrix {
  std::string model;
  std::vector<std::string> class_names;  // K, or empty: classes are called by number
  std::vector<int64_t> counts;           // [true][predicted], K*K
  std::string config_sha256;             // of the weights

  int64_t classes() const;
  int64_t at(int64_t truth, int64_t predicted) const;
  int64_t of_class(int64_t truth) const;  // images whose true class this is
  int64_t total() const;
  int64_t correct() const;
};

// logits [N,K], labels i64 [N]; the first of the largest logits counts, as for top-1.
ConfusionMatrix confusion_matrix(const Tensor& logits, const Tensor& labels);

// DIR/confusion.json, beside the weights. Reading: nothing when it is missing or damaged.
void write_confusion(const std::string& dir, const ConfusionMatrix& matrix);
std::optional<ConfusionMatrix> read_confusion(const std::string& dir);

}  // namespace mtcki
