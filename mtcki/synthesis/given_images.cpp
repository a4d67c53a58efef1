#include "mtcki/synthesis/given_images.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "data/formats/json_file.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/index.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

struct Images {
  Tensor images, labels;
};

Images noise(const SynthesisJob& job, int64_t batch) {
  const int64_t n = job.config.batch_size, size = job.info.image_size;
  std::vector<int64_t> labels;
  for (int64_t i = batch * n; i < (batch + 1) * n; ++i) labels.push_back(i % job.info.num_classes);
  const Rng rng{job.options.seed, rng_stream("given/noise"), static_cast<uint64_t>(batch)};
  return {unit_to_u8(rand({n, job.info.channels, size, size}, rng)), Tensor::from(labels, {n})};
}

// All images of the sets of other runs; what those had cost is added to `result`.
Images joined(const SynthesisJob& job, const std::string& run_folder, SynthesisResult* result) {
  std::vector<Tensor> images, labels;
  for (const std::string& from : job.config.from) {
    const std::string dir = (std::filesystem::path(run_folder) / from / "synth").string();
    const ImagePool pool = ImagePool::open(dir);
    const nlohmann::json done = data::read_sealed_json(dir + "/done.json");
    if (!done.is_object() || !done.contains("budget"))
      throw DataError(str("synthesis.from: the set of ", dir, " is not finished, or its done.json ",
                          "is damaged; `mtcki invert` finishes it"));
    if (pool.info().channels != job.info.channels ||
        pool.info().image_size != job.info.image_size ||
        pool.info().class_names != job.info.class_names)
      throw UsageError(str("synthesis.from: ", dir, " has images or classes of another kind"));
    const data::ImageSet set = pool.load();
    images.push_back(set.images);
    labels.push_back(set.labels);
    result->budget += done.at("budget").get<Budget>();
    result->seconds += done.at("seconds").get<double>();
  }
  return {cat(images), cat(labels)};
}

// As many of the training set as the pool is to have, in random order.
Images drawn(const SynthesisJob& job, const data::ImageSet& train) {
  const int64_t n = job.config.batches * job.config.batch_size;
  if (train.size() < n)
    throw UsageError(str("synthesis.source: real has ", train.size(),
                         " training images, synthesis.batches x batch_size are ", n));
  const Tensor rows =
      sample_without_replacement(train.size(), n, {job.options.seed, rng_stream("given/real"), 0});
  return {index_select(train.images, rows), index_select(train.labels, rows)};
}

}  // namespace

SynthesisResult take_images(const SynthesisJob& job, const std::string& run_folder,
                            const std::function<const data::ImageSet&()>& train, RunLog& log) {
  const auto start = std::chrono::steady_clock::now();
  const SynthesisConfig& c = job.config;
  SynthesisResult result;
  Images all;
  if (c.source == "real") all = drawn(job, train());
  if (c.source == "sets") all = joined(job, run_folder, &result);
  if (all.images.defined() && all.images.size(0) != c.batches * c.batch_size)
    throw UsageError(str("synthesis.from: the sets hold ", all.images.size(0),
                         " images, synthesis.batches x batch_size are ", c.batches * c.batch_size));
  ImagePool pool(job.dir, job.info);
  pool.truncate(0);
  for (int64_t b = 0; b < c.batches; ++b) {
    const int64_t first = b * c.batch_size, last = first + c.batch_size;
    const Images batch = all.images.defined() ? Images{all.images.slice(first, last).clone(),
                                                       all.labels.slice(first, last).clone()}
                                              : noise(job, b);
    pool.add(b, batch.images, batch.labels);
    if (b == 0)
      log.images("synthesis", 1, batch.images.slice(0, std::min<int64_t>(64, c.batch_size)));
  }
  result.images = result.budget.images = pool.size();
  result.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace mtcki
