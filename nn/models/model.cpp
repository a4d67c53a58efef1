#include "nn/models/model.h"

namespace mtcki::nn {

Classifier::Output Classifier::features(const Variable& x) {
  Output out;
  out.logits = call(x, [&] {
    out.feature = feature_of(x);
    return head(out.feature);
  });
  return out;
}

Variable Classifier::feature_of(const Variable& x) {
  const Variable feature = trunk(x);
  return feature.data().dtype() == DType::bf16 ? cast(feature, DType::f32) : feature;
}

std::vector<BatchNorm2d*> Classifier::batch_norms() {
  std::vector<BatchNorm2d*> out;
  for (auto& [path, module] : named_modules())
    if (auto* bn = dynamic_cast<BatchNorm2d*>(module)) out.push_back(bn);
  return out;
}

}  // namespace mtcki::nn
