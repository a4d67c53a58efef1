#include "mtcki/evaluation/neighbours.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "data/formats/state_file.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

constexpr int64_t kPiece = 500;  // images at a time

Tensor on_host(const Tensor& x) { return x.to(Device::cpu()).plain().to(DType::f32); }

double distance(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return std::sqrt(sum);
}

// images u8 [n,C,H,W] -> what is compared, [n,D].
Tensor embed(const Tensor& images, Teacher* classifier) {
  const Tensor unit = u8_to_unit(images);
  return on_host(classifier ? classifier->forward_no_grad(unit).feature.data()
                            : unit.reshape({images.size(0), -1}));
}

Tensor rows_of(const Tensor& x, const std::vector<int64_t>& rows) {
  return index_select(x, Tensor::from(rows, {std::ssize(rows)}));
}

// One image of every class in turn; those of a class spread over the set.
std::vector<int64_t> sample_rows(const data::ImageSet& set, int64_t sample) {
  std::vector<std::vector<int64_t>> of_class;
  const std::vector<int64_t> labels = set.labels.to_vector<int64_t>();
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto k = static_cast<size_t>(labels[i]);
    if (of_class.size() <= k) of_class.resize(k + 1);
    of_class[k].push_back(static_cast<int64_t>(i));
  }
  std::erase_if(of_class, [](const auto& rows) { return rows.empty(); });
  std::vector<int64_t> out;
  const auto classes = std::ssize(of_class);
  const int64_t n = classes == 0 ? 0 : std::min(sample, set.size());
  for (int64_t s = 0; s < n; ++s) {
    const int64_t k = n < classes ? s * classes / n : s % classes;
    const auto& rows = of_class[static_cast<size_t>(k)];
    out.push_back(rows[static_cast<size_t>(s) * rows.size() / static_cast<size_t>(n)]);
  }
  return out;
}

}  // namespace

NearestRows::NearestRows(const Tensor& queries, int64_t count)
    : queries_(on_host(queries)), count_(count) {
  if (queries_.rank() != 2)
    throw ShapeError(str("nearest rows: needs queries [Q,D], got ", queries.describe()));
  hits_.resize(static_cast<size_t>(queries_.size(0)));
}

void NearestRows::add(const Tensor& piece) {
  const Tensor rows = on_host(piece);
  const int64_t d = queries_.size(1), n = rows.size(0);
  if (rows.rank() != 2 || rows.size(1) != d)
    throw ShapeError(str("nearest rows: ", queries_.describe(), " against ", piece.describe()));
  // |q-r|² = |q|² + 2(|r|²/2 - q.r): the bracket orders the rows.
  const Tensor order = sub(mul(sum(square(rows), {1}), 0.5), matmul(queries_, rows, false, true));
  std::vector<int64_t> index(static_cast<size_t>(n));
  const int64_t candidates = std::min(n, count_ + 8);
  for (size_t q = 0; q < hits_.size(); ++q) {
    const float* score = order.data<float>() + static_cast<int64_t>(q) * n;
    std::iota(index.begin(), index.end(), 0);
    std::partial_sort(index.begin(), index.begin() + candidates, index.end(),
                      [score](int64_t a, int64_t b) {
                        return score[a] != score[b] ? score[a] < score[b] : a < b;
                      });
    std::vector<Hit>& hits = hits_[q];
    for (int64_t c = 0; c < candidates; ++c) {
      const int64_t r = index[static_cast<size_t>(c)];
      hits.push_back({distance(queries_.data<float>() + static_cast<int64_t>(q) * d,
                               rows.data<float>() + r * d, d),
                      rows_ + r});
    }
    std::ranges::sort(hits, {}, [](const Hit& h) { return std::tie(h.distance, h.row); });
    if (std::ssize(hits) > count_) hits.resize(static_cast<size_t>(count_));
  }
  rows_ += n;
}

NeighbourDisplay find_neighbours(const data::ImageSet& synthetic, const data::ImageSet& train,
                                 const data::ImageSet& test, Teacher* classifier, int64_t sample,
                                 int64_t count) {
  NeighbourDisplay out;
  count = std::min(count, train.size());
  const std::vector<int64_t> rows = sample_rows(synthetic, sample);
  const std::vector<int64_t> test_rows = sample_rows(test, std::ssize(rows));
  if (rows.empty() || test_rows.empty() || count < 1) return out;
  out.images = rows_of(synthetic.images, rows);
  NearestRows nearest(embed(out.images, classifier), count);
  NearestRows usual(embed(rows_of(test.images, test_rows), classifier), 1);
  for (int64_t i = 0; i < train.size(); i += kPiece) {
    const Tensor piece =
        embed(train.images.slice(i, std::min(train.size(), i + kPiece)), classifier);
    nearest.add(piece);
    usual.add(piece);
  }
  const std::vector<int64_t> synthetic_labels = synthetic.labels.to_vector<int64_t>();
  const std::vector<int64_t> train_labels = train.labels.to_vector<int64_t>();
  for (size_t s = 0; s < rows.size(); ++s) {
    out.labels.push_back(synthetic_labels[static_cast<size_t>(rows[s])]);
    for (const NearestRows::Hit& hit : nearest.hits()[s]) {
      out.real_rows.push_back(hit.row);
      out.real_labels.push_back(train_labels[static_cast<size_t>(hit.row)]);
      out.distances.push_back(hit.distance);
    }
  }
  out.real = rows_of(train.images, out.real_rows);
  std::vector<double> usual_distances;
  for (const auto& hits : usual.hits()) usual_distances.push_back(hits.front().distance);
  std::ranges::sort(usual_distances);
  out.usual_distance = usual_distances[usual_distances.size() / 2];
  out.searched = train.size();
  out.class_names = train.class_names;
  out.space = classifier
                  ? "features of the held-out classifier (" + classifier->options().spec.name + ")"
                  : "pixels in [0,1]";
  return out;
}

// Of everything in the file.
static std::string checksum(const data::NamedTensors& tensors,
                            std::map<std::string, std::string> texts) {
  texts.erase("crc32c");
  uint32_t crc = 0;
  for (const auto& [name, tensor] : std::map(tensors.begin(), tensors.end())) {
    const Tensor t = tensor.plain();
    crc = data::crc32c(name.data(), name.size(), crc);
    crc = data::crc32c(t.raw(), t.nbytes(), crc);
  }
  for (const auto& [name, text] : texts) {
    const std::string line = name + "=" + text;
    crc = data::crc32c(line.data(), line.size(), crc);
  }
  return str(crc);
}

void write_neighbours(const std::string& path, const NeighbourDisplay& n) {
  const auto column = [](const auto& values) { return Tensor::from(values, {std::ssize(values)}); };
  const auto text = [](const nlohmann::json& j) {
    return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  const data::NamedTensors tensors = {
      {"images", n.images.to(Device::cpu())},
      {"real", n.real.to(Device::cpu())},
      {"labels", column(n.labels)},
      {"real_labels", column(n.real_labels)},
      {"real_rows", column(n.real_rows)},
      {"distances", column(n.distances)},
      {"usual_distance", column(std::vector<double>{n.usual_distance})},
      {"searched", column(std::vector<int64_t>{n.searched})}};
  std::map<std::string, std::string> texts = {
      {"space", n.space}, {"class_names", text(n.class_names)}, {"inputs", n.inputs}};
  texts["crc32c"] = checksum(tensors, texts);
  data::write_safetensors(path, tensors, texts);
}

std::optional<NeighbourDisplay> read_neighbours(const std::string& path) {
  if (!data::file_exists(path)) return std::nullopt;
  try {
    const data::StateFile file = data::read_safetensors(path);
    if (file.metadata.at("crc32c") != checksum(file.tensors, file.metadata)) return std::nullopt;
    const auto tensor = [&file](const std::string& name) {
      for (const auto& [n, t] : file.tensors)
        if (n == name) return t;
      throw DataError("no " + name);
    };
    NeighbourDisplay n{.space = file.metadata.at("space"),
                       .images = tensor("images"),
                       .real = tensor("real"),
                       .labels = tensor("labels").to_vector<int64_t>(),
                       .real_labels = tensor("real_labels").to_vector<int64_t>(),
                       .real_rows = tensor("real_rows").to_vector<int64_t>(),
                       .distances = tensor("distances").to_vector<double>(),
                       .searched = static_cast<int64_t>(tensor("searched").item()),
                       .usual_distance = tensor("usual_distance").item(),
                       .inputs = file.metadata.at("inputs")};
    n.class_names =
        data::parse_json(file.metadata.at("class_names")).get<std::vector<std::string>>();
    const auto is_images = [](const Tensor& t, int64_t count) {
      return t.dtype() == DType::u8 && t.rank() == 4 && t.size(0) == count && t.numel() > 0 &&
             (t.size(1) == 1 || t.size(1) == 3);
    };
    const auto hits = std::ssize(n.distances);
    const bool fits = n.size() > 0 && hits > 0 && hits % n.size() == 0 &&
                      is_images(n.images, n.size()) && is_images(n.real, hits) &&
                      n.real_labels.size() == n.distances.size() &&
                      n.real_rows.size() == n.distances.size();
    if (fits) return n;
  } catch (const std::exception&) {
    // Only a display: a damaged file is left out, and made again by the next run.
  }
  return std::nullopt;
}

}  // namespace mtcki
