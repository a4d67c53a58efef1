#include "nn/models/families.h"

#include "autograd/functions.h"
#include "nn/init.h"

namespace mtcki::nn {

std::unique_ptr<Conv2d> make_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                  Weights weights, Init& init, int64_t groups, bool bias) {
  Conv2dOptions options(stride, kernel / 2);
  options.groups = groups;
  if (weights == Weights::kaiming_uniform)
    return std::make_unique<Conv2d>(in, out, kernel, options, bias, init);
  Init later = init.undrawn();
  auto conv = std::make_unique<Conv2d>(in, out, kernel, options, bias, later);
  if (!init.draw) return conv;
  if (weights == Weights::kaiming_normal_fan_out)
    kaiming_normal_fan_out_(conv->weight, init.next());
  else
    kaiming_normal_fan_in_(conv->weight, init.next());
  return conv;
}

std::unique_ptr<BatchNorm2d> make_norm(int64_t channels, const Init& init) {
  return std::make_unique<BatchNorm2d>(channels, 1e-5, 0.1, init.dtype);
}

// Hidden layers may stand behind the pooling: then the feature is not the mean of a map.
Variable RowClassifier::trunk(const Variable& x) {
  const auto* last = std::get_if<Link::Function>(&trunk_.back().what);
  const bool pools = last != nullptr && *last == static_cast<Link::Function>(global_avg_pool);
  Chain h(x);
  for (size_t i = 0; i + (pools ? 1 : 0) < trunk_.size(); ++i) h |= trunk_[i];
  if (pools) return pooled(std::move(h));
  return h;
}

Variable RowClassifier::head(const Variable& feature) {
  Chain h(feature);
  for (const Link& link : head_) h |= link;
  return h;
}

}  // namespace mtcki::nn
