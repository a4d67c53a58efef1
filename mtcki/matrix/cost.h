// Multiply-accumulates of a whole job, counted by passes: forward 1, backward to the input 1,
// backward to the weights 1. A frozen network costs two passes of the images that it judges, a
// trained one three, and the generator that only shows a student its images one. Not counted: the contrast's heads, noisy layers, elementwise work, augmentation, tests, the
// teachers' own training (docs/decisions/counted-budget.md).
#pragma once

#include <nlohmann/json.hpp>

#include "mtcki/config/config.h"
#include "nn/models/model.h"

namespace mtcki {

// shape: channels, image size and classes of the images; its name does not matter.
double model_macs(nn::ModelSpec shape, const std::string& model);  // one image, forward

// Of a whole job as its configuration says: g_steps * per_g_step + rest. Rounds are in it, each
// student's own; of synthesis.source sets only the distillation, as nobody knows what those had cost.
struct PlannedMacs {
  double per_g_step = 0, rest = 0;
  double whole(const RunConfig& config) const {
    return static_cast<double>(config.synthesis.g_steps) * per_g_step + rest;
  }
};
PlannedMacs planned_macs(const RunConfig& config, const nn::ModelSpec& shape);
// As the counters in "metrics" of result.json say.
double counted_macs(const RunConfig& config, const nn::ModelSpec& shape,
                    const nlohmann::json& metrics);

}  // namespace mtcki
