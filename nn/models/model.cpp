#include "nn/models/model.h"

namespace mtcki::nn {

Classifier::Output Classifier::features(const Variable& x) {
  Output out;
  out.logits = call(x, [&] {
    out.feature = trunk(x);
    return head(out.feature);
  });
  return out;
}

std::vector<BatchNorm2d*> Classifier::batch_norms() {
  std::vector<BatchNorm2d*> out;
  for (auto& [path, module] : named_modules())
    if (auto* bn = dynamic_cast<BatchNorm2d*>(module)) out.push_back(bn);
  return out;
}

}  // namespace mtcki::nn
