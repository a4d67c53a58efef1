// The history bank on disk: one immutable shard per batch (docs/file-formats.md), so that a checkpoint
// refers to rows and does not copy them.
//   bank/shard-00000.safetensors   phi_local, phi_global [n,C] (head h > 0: phi_local.h, ...), F32
//   or BF16
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/losses/history_contrast.h"

namespace mtcki {

class BankShards {
 public:
  // stage_dir: the folder that must be deleted to have the shards made again.
  BankShards(std::string dir, std::string stage_dir, int64_t batch_size, int64_t keep_batches)
      : dir_(std::move(dir)),
        stage_dir_(std::move(stage_dir)),
        batch_size_(batch_size),
        keep_(keep_batches) {}

  void write(int64_t batch, const std::vector<Tensor>& local, const std::vector<Tensor>& global,
             DType dtype);
  // Checksums of the shards, which a checkpoint holds: [[batch, crc32c]...]. A shard without one is
  // not read.
  nlohmann::json checksums() const { return crc32c_; }
  void set_checksums(const nlohmann::json& saved) { saved.get_to(crc32c_); }
  // The ring as it was after `batches` batches. DataError names a missing or damaged shard.
  void restore(HistoryContrast& contrast, int64_t batches) const;
  // Adds shards 0..batches-1 of this folder to the ring as it is.
  void replay(HistoryContrast& contrast, int64_t batches) const;
  // Removes shards that a ring after `batches` batches (and keep_batches before it) cannot need.
  void prune(HistoryContrast& contrast, int64_t batches);

 private:
  std::string path(int64_t batch) const;
  void add(HistoryContrast& contrast, size_t head, int64_t batch) const;
  int64_t needed(int64_t capacity) const { return (capacity + batch_size_ - 1) / batch_size_; }
  std::string dir_, stage_dir_;
  int64_t batch_size_, keep_;
  std::map<int64_t, uint32_t> crc32c_;  // known on the first rank; elsewhere those of a checkpoint
};

}  // namespace mtcki
