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

Variable RowClassifier::trunk(const Variable& x) {
  Chain h(x);
  for (const Link& link : trunk_) {
    const auto* function = std::get_if<Link::Function>(&link.what);
    if (function != nullptr && *function == static_cast<Link::Function>(global_avg_pool))
      h = Chain(pooled(std::move(h)));
    else
      h |= link;
  }
  return h;
}

Variable RowClassifier::head(const Variable& feature) {
  Chain h(feature);
  for (const Link& link : head_) h |= link;
  return h;
}

}  // namespace mtcki::nn
