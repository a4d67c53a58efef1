// A run without a real image, data.name = "none": what must be said then, and what cannot be had.
#include <algorithm>

#include "mtcki/config/keys.h"
#include "tensor/error.h"

namespace mtcki {

int64_t held_out_images(const RunConfig& c) {
  if (c.data.holdout > 0) return c.data.holdout;
  return std::max<int64_t>(1, c.synthesis.batches * c.synthesis.batch_size / 10);
}

namespace config_keys {

void validate_data(const RunConfig& c) {
  const DataConfig& d = c.data;
  if (!d.is_none()) {
    if (d.classes > 0 || d.pixels > 0)
      throw UsageError("data.classes, data.pixels: the images of " + d.name +
                       " say them; they are for data.name = \"none\"");
    return;
  }
  const std::string none = "data.name = \"none\": ";
  if (d.classes < 2 || d.pixels < 1)
    throw UsageError(none +
                     "there are no images that say what the teachers take; set data.classes "
                     "(at least 2) and data.pixels, the height and width of an image");
  if (d.channels == 2) throw UsageError("data.channels: 1 or 3, not 2");
  if (d.train_limit > 0 || d.test_limit > 0 || d.size > 0 || d.skip_bad > 0)
    throw UsageError(none +
                     "there are no images to limit, resize or skip; remove "
                     "data.train_limit, test_limit, size and skip_bad");
  for (const TeacherConfig& t : c.teachers)
    if (t.weights.empty())
      throw UsageError(none + "there are no images to train teacher \"" + t.name +
                       "\" on; give its weights");
  if (!c.metrics.classifier_model.empty())
    throw UsageError(
        "metrics.classifier_model: FID-C and IS-C compare with real images, and "
        "data.name = \"none\" has none; remove it");
  const int64_t pool = c.synthesis.batches * c.synthesis.batch_size, held = held_out_images(c);
  if (!c.students.empty() && pool - held < c.distill.batch_size)
    throw UsageError(str("data.holdout: ", held, " of ", pool,
                         " synthetic images are kept from distillation, and the rest is less than "
                         "one batch (distill.batch_size = ",
                         c.distill.batch_size, "); synthesis.batches and batch_size make more"));
}

}  // namespace config_keys

}  // namespace mtcki
