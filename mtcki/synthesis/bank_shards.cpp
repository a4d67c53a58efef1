#include "mtcki/synthesis/bank_shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "data/formats/state_file.h"
#include "nn/state_dict.h"
#include "tensor/comm.h"

namespace mtcki {

namespace {

std::string suffix(size_t head) { return head == 0 ? "" : str(".", head); }

}  // namespace

std::string BankShards::path(int64_t batch) const {
  return fmt::format("{}/shard-{:05}.safetensors", dir_, batch);
}

void BankShards::write(int64_t batch, const std::vector<Tensor>& local,
                       const std::vector<Tensor>& global, DType dtype) {
  if (!communicator().is_root()) return;
  data::make_directories(dir_);
  data::NamedTensors tensors;
  for (size_t h = 0; h < local.size(); ++h) {
    tensors.emplace_back("phi_local" + suffix(h), local[h].to(dtype));
    tensors.emplace_back("phi_global" + suffix(h), global[h].to(dtype));
  }
  data::write_safetensors(path(batch), tensors, {{"mtcki.format_version", "1"}});
  crc32c_[batch] = data::crc32c_file(path(batch));
}

void BankShards::add(HistoryContrast& contrast, size_t head, int64_t batch) const {
  MemoryBank& bank = contrast.bank(head);
  const auto damaged = [&](const std::string& what) {
    throw DataError(str(path(batch), ": ", what, "; delete the folder \"", stage_dir_,
                        "\" to do this stage again"));
  };
  const auto sum = crc32c_.find(batch);
  if (sum == crc32c_.end() || !data::file_exists(path(batch)) ||
      data::crc32c_file(path(batch)) != sum->second)
    damaged("missing, or not what the stage wrote");
  const data::StateFile file = data::read_safetensors(path(batch));
  const Tensor local = entry(file.tensors, "phi_local" + suffix(head));
  const Tensor global = entry(file.tensors, "phi_global" + suffix(head));
  const Shape expected{batch_size_, bank.channels()};
  if (!local.defined() || !global.defined() || local.shape() != expected ||
      global.shape() != expected)
    damaged("needs phi_local and phi_global " + expected.to_string());
  bank.add(local, global);
}

void BankShards::restore(HistoryContrast& contrast, int64_t batches) const {
  for (size_t h = 0; h < contrast.heads(); ++h) {
    const int64_t first = std::max<int64_t>(0, batches - needed(contrast.bank(h).capacity()));
    contrast.bank(h).restart(first * batch_size_);
    for (int64_t b = first; b < batches; ++b) add(contrast, h, b);
  }
}

void BankShards::replay(HistoryContrast& contrast, int64_t batches) const {
  for (size_t h = 0; h < contrast.heads(); ++h)
    for (int64_t b = 0; b < batches; ++b) add(contrast, h, b);
}

void BankShards::prune(HistoryContrast& contrast, int64_t batches) {
  if (!communicator().is_root()) return;
  int64_t most = 0;
  for (size_t h = 0; h < contrast.heads(); ++h)
    most = std::max(most, needed(contrast.bank(h).capacity()));
  for (int64_t b = batches - most - keep_ - 1; b >= 0 && std::filesystem::remove(path(b)); --b)
    crc32c_.erase(b);
}

}  // namespace mtcki
