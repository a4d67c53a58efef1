// Multiply-accumulates of a whole job, counted by passes: forward 1, backward to the input 1,
// backward to the weights 1. A frozen network costs two passes of the images that it judges, a
// trained one three. Not counted: the contrast's heads, elementwise work, augmentation, tests, the
// teachers' own training (docs/decisions/counted-budget.md).
#pragma once

#include <nlohmann/json.hpp>

#include "mtcki/config/config.h"
#include "nn/models/model.h"

namespace mtcki {

// shape: channels, image size and classes of the images; its name does not matter.
double model_macs(nn::ModelSpec shape, const std::string& model);  // one image, forward

// As the configuration says: of one step of synthesis, and of the distillation of all students.
double planned_step_macs(const RunConfig& config, const nn::ModelSpec& shape);
double planned_distillation_macs(const RunConfig& config, const nn::ModelSpec& shape);
// As the counters in "metrics" of result.json say, both together.
double counted_macs(const RunConfig& config, const nn::ModelSpec& shape,
                    const nlohmann::json& metrics);

}  // namespace mtcki
