#include "mtcki/run/no_data.h"

#include <algorithm>
#include <vector>

#include "data/sets/holdout.h"
#include "mtcki/networks/model_file.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace mtcki {

data::Normalization known_normalization(const TeacherConfig& t,
                                        const data::Normalization& of_file) {
  data::Normalization n = of_file;
  if (!t.mean.empty()) n = {t.mean, t.std};
  if (n.mean.empty() || n.std.empty())
    throw UsageError(str("teachers \"", t.name,
                         "\": data.name = \"none\" has no usual normalisation, and neither the "
                         "configuration nor the file says the teacher's; set mean and std, one "
                         "value per channel of images in [0,1]"));
  return n;
}

data::ImageSet set_without_images(const RunConfig& c) {
  const int64_t channels = c.data.channels > 0 ? c.data.channels : 3;
  data::ImageSet set{
      .name = "none",
      .images = Tensor::empty({0, channels, c.data.pixels, c.data.pixels}, DType::u8),
      .labels = Tensor::empty({0}, DType::i64)};
  for (const TeacherConfig& t : c.teachers) {
    ModelCard card;
    load_model(t.weights, {t.model, channels, c.data.pixels, c.data.classes}, t.name_map, &card,
               nullptr, t.weights_key);
    const data::Normalization n = known_normalization(t, card.normalization);
    if (set.normalization.mean.empty()) set.normalization = n;
    if (!set.class_ids.empty() || std::ssize(card.classes) != c.data.classes) continue;
    set.class_ids = set.class_names = card.classes;
    set.name = str("teacher ", t.name);
  }
  for (int64_t k = 0; set.class_ids.empty() && k < c.data.classes; ++k)
    set.class_names.push_back(std::to_string(k));
  return set;
}

data::ImageSet pool_part(const data::ImageSet& pool, const RunConfig& c, bool held) {
  const int64_t n = held_out_images(c);
  if (n >= pool.size())
    throw UsageError(str("data.holdout: ", n, " of ", pool.size(),
                         " synthetic images; at least one must be left to learn from"));
  std::vector<int64_t> order =
      randperm(pool.size(), Rng{c.seed, rng_stream("no_data/held_out")}).to_vector<int64_t>();
  const auto cut = order.begin() + n;
  std::vector<int64_t> rows =
      held ? std::vector<int64_t>(order.begin(), cut) : std::vector<int64_t>(cut, order.end());
  std::ranges::sort(rows);
  return data::rows_of(pool, rows);
}

std::string measurement_note(const RunConfig& c) {
  if (!c.data.is_none()) return "";
  return str(
      "no real images (data.name = \"none\"): what is measured is agreement with the fused "
      "teachers on ",
      held_out_images(c), " of the ", c.synthesis.batches * c.synthesis.batch_size,
      " synthetic images, which distillation did not see (drawn by seed ", c.seed,
      "); top-1, top-5, confusion, FID-C, IS-C and nearest images need real ones and are "
      "absent");
}

}  // namespace mtcki
