// Sets that are not synthesised here: references (real images, noise), and finished sets of other
// runs, joined.
#pragma once

#include <functional>
#include <string>

#include "mtcki/synthesis/stage.h"

namespace mtcki {

// Puts batches x batch_size images into job.dir, as job.config.source says:
//   real   drawn from the training set without replacement, with their labels
//   noise  pixels U[0, 1), classes in turn
//   sets   those of the runs job.config.from (relative paths: from run_folder), in this order; the
//          budget and the seconds are the sums of theirs
// UsageError when the training set has too few images, or the sets hold another number.
SynthesisResult take_images(const SynthesisJob& job, const std::string& run_folder,
                            const std::function<const data::ImageSet&()>& train, RunLog& log);

}  // namespace mtcki
