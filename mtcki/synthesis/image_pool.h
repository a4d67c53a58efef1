// ImagePool: the synthetic set of a run (docs/file-formats.md). One immutable shard per synthesised batch:
//   shard-00000.safetensors   images U8 [n,C,H,W], labels I64 [n], batch I32 [n],
//                             optional logits.<teacher> F32 [n,K], maps.<number> F32 [n,...]
//   manifest.json             what the set is, how it was made, shards with sha256 and CRC-32C
// Students always train on these bytes. In a job of several ranks, all of them call add() and
// truncate() with the same values and the first one writes.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/sets/dataset.h"

namespace mtcki {

struct PoolInfo {
  int64_t channels = 3, image_size = 32, num_classes = 10;
  std::vector<std::string> class_names;
  std::string quant = "round";
  uint64_t seed = 0;
  std::string config_sha256;
  std::string command;                                // regenerates the set
  nlohmann::json teachers = nlohmann::json::array();  // [{name, arch, sha256, mean, std, top1}]
};

class ImagePool {
 public:
  // A new or continued set in `dir`.
  ImagePool(std::string dir, PoolInfo info);
  // An existing set; DataError names the damaged or missing file.
  static ImagePool open(const std::string& dir);

  // Writes one shard, then lists it. Shards with this or a later number are dropped first: a
  // resumed run makes them again, with the same bytes.
  void add(int64_t batch, const Tensor& images, const Tensor& labels,
           const std::vector<std::pair<std::string, Tensor>>& more = {});
  // Of the first `batches` shards: what a checkpoint keeps, so that it is not continued with images
  // of another run. require: DataError unless they are listed and have this digest.
  uint32_t digest(int64_t batches) const;
  void require(int64_t batches, uint32_t digest) const;
  // Forgets shards from number `batches` on.
  void truncate(int64_t batches);

  int64_t batches() const { return std::ssize(shards_); }
  int64_t size() const;
  const PoolInfo& info() const { return info_; }
  const std::string& dir() const { return dir_; }
  std::vector<int64_t> count_per_class() const;
  // All images in memory, in shard order. Each shard's checksum is verified.
  data::ImageSet load() const;
  // The tensors PREFIX0, PREFIX1, ... of all shards, each with a row per image.
  std::vector<Tensor> load(const std::string& prefix) const;
  void verify() const;  // size and checksum of every shard

 private:
  struct Shard {
    std::string file, sha256;
    uint32_t crc32c = 0;
    int64_t first = 0, count = 0, bytes = 0;
    std::vector<int64_t> per_class;
    NLOHMANN_DEFINE_TYPE_INTRUSIVE(Shard, file, first, count, bytes, crc32c, sha256, per_class)
  };
  ImagePool() = default;
  void check_shapes(const std::string& manifest) const;
  void check_size(const Shard& shard) const;
  void check_content(const Shard& shard) const;
  void write_manifest() const;
  std::string path(const std::string& file) const { return dir_ + "/" + file; }

  std::string dir_;
  PoolInfo info_;
  std::vector<Shard> shards_;
};

}  // namespace mtcki
