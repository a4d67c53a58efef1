#include "mtcki/evaluation/confusion.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "data/formats/atomic_file.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

using nlohmann::json;

int64_t ConfusionMatrix::classes() const {
  int64_t k = 0;
  while (k * k < std::ssize(counts)) ++k;
  return k;
}

int64_t ConfusionMatrix::at(int64_t truth, int64_t predicted) const {
  return counts[static_cast<size_t>(truth * classes() + predicted)];
}

int64_t ConfusionMatrix::of_class(int64_t truth) const {
  const auto row = counts.begin() + truth * classes();
  return std::accumulate(row, row + classes(), int64_t{0});
}

int64_t ConfusionMatrix::total() const {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

int64_t ConfusionMatrix::correct() const {
  int64_t n = 0;
  for (int64_t k = 0, classes = this->classes(); k < classes; ++k) n += at(k, k);
  return n;
}

ConfusionMatrix confusion_matrix(const Tensor& logits, const Tensor& labels) {
  if (logits.rank() != 2 || labels.rank() != 1 || labels.size(0) != logits.size(0))
    throw ShapeError(str("confusion_matrix: needs logits [N,K] and labels [N], got ",
                         logits.describe(), " and ", labels.describe()));
  const int64_t k = logits.size(1);
  const std::vector<int64_t> guess = argmax(logits, 1).to_vector<int64_t>();
  const std::vector<int64_t> truth = labels.to_vector<int64_t>();
  ConfusionMatrix m;
  m.counts.assign(static_cast<size_t>(k * k), 0);
  for (size_t i = 0; i < truth.size(); ++i) {
    if (truth[i] < 0 || truth[i] >= k)
      throw ShapeError(str("confusion_matrix: label ", truth[i], " of ", k, " classes"));
    ++m.counts[static_cast<size_t>(truth[i] * k + guess[i])];
  }
  return m;
}

void write_confusion(const std::string& dir, const ConfusionMatrix& m) {
  const json j = {{"format_version", 1},
                  {"model", m.model},
                  {"class_names", m.class_names},
                  {"counts", m.counts},
                  {"config_sha256", m.config_sha256}};
  data::write_sealed_json(dir + "/confusion.json", j);
}

std::optional<ConfusionMatrix> read_confusion(const std::string& dir) {
  const json j = data::read_sealed_json(dir + "/confusion.json");
  ConfusionMatrix m;
  try {
    if (j.at("format_version") != 1) return std::nullopt;
    m.model = j.at("model").get<std::string>();
    m.class_names = j.at("class_names").get<std::vector<std::string>>();
    m.counts = j.at("counts").get<std::vector<int64_t>>();
    m.config_sha256 = j.at("config_sha256").get<std::string>();
  } catch (const json::exception&) {
    return std::nullopt;
  }
  const int64_t k = m.classes();
  const bool square = k > 0 && k * k == std::ssize(m.counts);
  const bool named = m.class_names.empty() || std::ssize(m.class_names) == k;
  if (!square || !named) return std::nullopt;
  for (const int64_t n : m.counts)
    if (n < 0 || n > int64_t{1} << 40) return std::nullopt;
  return m;
}

}  // namespace mtcki
