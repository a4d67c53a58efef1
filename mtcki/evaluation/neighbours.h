// The real training images that are nearest to some synthetic ones: a look at whether images were
// made or remembered. Real data is used for this display only; nothing learns from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

// The `count` nearest rows of a reference that comes in pieces.
class NearestRows {
 public:
  struct Hit {
    double distance = 0;  // Euclidean
    int64_t row = 0;      // counted over all pieces
  };
  NearestRows(const Tensor& queries, int64_t count);  // [Q,D]
  // Rows [n,D]. f32 products choose candidates, f64 distances decide among them.
  void add(const Tensor& piece);
  // Per query, nearest first; equal ones in order of their rows.
  const std::vector<std::vector<Hit>>& hits() const { return hits_; }

 private:
  Tensor queries_;  // f32, plain, on the CPU
  int64_t count_ = 0, rows_ = 0;
  std::vector<std::vector<Hit>> hits_;
};

// Of S synthetic images, the `count` nearest real ones of each: row s*count+i is the i-th of s.
struct NeighbourDisplay {
  std::string space;  // where distances are taken, for the reader
  std::vector<std::string> class_names;
  Tensor images;                                        // u8 [S,C,H,W]
  Tensor real;                                          // u8 [S*count,C,H,W]
  std::vector<int64_t> labels, real_labels, real_rows;  // of the synthetic; of the real ones
  std::vector<double> distances;                        // [S*count]
  int64_t searched = 0;                                 // real training images
  double usual_distance = -1;  // median over S real test images of the distance to the nearest
  std::string inputs;          // what it was made from: made again only when that changes

  int64_t size() const { return std::ssize(labels); }
  int64_t count() const { return labels.empty() ? 0 : std::ssize(distances) / size(); }
};

// A sample of `synthetic` that covers the classes evenly, against all of `train`. classifier: the
// distance of its features; nullptr: that of pixels in [0,1].
NeighbourDisplay find_neighbours(const data::ImageSet& synthetic, const data::ImageSet& train,
                                 const data::ImageSet& test, Teacher* classifier, int64_t sample,
                                 int64_t count = 3);

// One safetensors file. Reading: nothing when it is missing, damaged or something else.
void write_neighbours(const std::string& path, const NeighbourDisplay& display);
std::optional<NeighbourDisplay> read_neighbours(const std::string& path);

}  // namespace mtcki
