#include "tensor/ops/pool.h"

#include "autograd/functions.h"
#include "autograd/recorder.h"

namespace mtcki {

Variable max_pool2d(const Variable& x, const Pool2dOptions& o) {
  Recorder r("max_pool2d", {x});
  const MaxPool out = max_pool2d(x.data(), o);
  if (r.needs(0))
    r.grad(0, [index = r.save(out.index), s = x.shape(), o](const Tensor& gy) {
      return max_pool2d_grad(gy, index.get(), s, o);
    });
  return r.finish(out.y);
}

Variable avg_pool2d(const Variable& x, const Pool2dOptions& o) {
  Recorder r("avg_pool2d", {x});
  const Tensor y = avg_pool2d(x.data(), o);
  if (r.needs(0))
    r.grad(0, [s = x.shape(), o](const Tensor& gy) { return avg_pool2d_grad(gy, s, o); });
  return r.finish(y);
}

Variable adaptive_avg_pool2d(const Variable& x, int64_t oh, int64_t ow) {
  Recorder r("adaptive_avg_pool2d", {x});
  const Tensor y = adaptive_avg_pool2d(x.data(), oh, ow);
  if (r.needs(0))
    r.grad(0, [s = x.shape()](const Tensor& gy) { return adaptive_avg_pool2d_grad(gy, s); });
  return r.finish(y);
}

Variable global_avg_pool(const Variable& x) {
  Recorder r("global_avg_pool", {x});
  const Tensor y = global_avg_pool(x.data());
  if (r.needs(0))
    r.grad(0, [s = x.shape(), layout = x.data().layout()](const Tensor& gy) {
      return global_avg_pool_grad(gy, s, layout);
    });
  return r.finish(y);
}

Variable upsample_nearest2d(const Variable& x, int64_t oh, int64_t ow) {
  Recorder r("upsample_nearest2d", {x});
  const Tensor y = upsample_nearest2d(x.data(), oh, ow);
  if (r.needs(0))
    r.grad(0, [s = x.shape()](const Tensor& gy) { return upsample_nearest2d_grad(gy, s); });
  return r.finish(y);
}

}  // namespace mtcki
