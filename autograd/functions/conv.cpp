#include "tensor/ops/conv/conv.h"

#include <utility>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "autograd/side_stream.h"

namespace mtcki {

Variable conv2d(const Variable& x, const Variable& w, const Variable& bias, const Conv2dOptions& o,
                const Variable& residual) {
  Recorder r("conv2d", {x, w, bias, residual});
  ConvFusion fusion;
  fusion.residual = residual.data();
  const Tensor y = conv2d(x.data(), w.data(), bias.data(), o, std::move(fusion));
  if (r.needs(1))  // first: a GPU then computes it beside the input gradient
    r.grad(1, [x = r.save_input(0), s = w.shape(), o, dtype = w.data().dtype(),
               leaf = w.is_leaf()](const Tensor& gy) {
      const Tensor& in = x.get();  // a recipe runs here, on the stream that others read it on
      const auto compute = [&] { return conv2d_grad_weight(gy, in, s, o, dtype, leaf); };
      return leaf ? on_side_stream(gy.device(), compute) : compute();
    });
  if (r.needs(0))
    r.gather({0}, [w = r.save(w.data()), s = x.shape(), o](const Tensor& gy, GradientSum* gx) {
      gx->add(conv2d_grad_input(gy, w.get(), s, o, gx->take_sum()));
      return std::vector<Tensor>();
    });
  if (r.needs(2))
    r.grad(2,
           [dtype = bias.data().dtype()](const Tensor& gy) { return conv2d_grad_bias(gy, dtype); });
  if (r.needs(3)) r.grad(3, [](const Tensor& gy) { return gy; });
  return r.finish(y);
}

Variable bn_conv2d(const Variable& x, const Variable& bn_weight, const Variable& bn_bias,
                   const Tensor& running_mean, const Tensor& running_var, double momentum,
                   double eps, const Variable& w, const Variable& bias, const Conv2dOptions& o,
                   const Variable& residual, Activation act) {
  Recorder r("bn_conv2d", {x, bn_weight, bn_bias, w, bias, residual});
  const BatchStatistics s =
      batch_norm_statistics(x.data(), running_mean, running_var, momentum, eps);
  ConvFusion fusion;
  fusion.norm_before = {bn_weight.data(), bn_bias.data(), s.mean, {}, 0.0, s.invstd, act};
  fusion.residual = residual.data();
  const Tensor y = conv2d(x.data(), w.data(), bias.data(), o, std::move(fusion));
  if (!r.needs_any()) return r.finish(y);
  const SavedTensor in = r.save(x.data()), gamma = r.save(bn_weight.data()),
                    beta = r.save(bn_bias.data()), mean = r.save(s.mean), invstd = r.save(s.invstd);
  if (r.needs(3))
    r.grad(3, [in, gamma, beta, mean, invstd, shape = w.shape(), o, dtype = w.data().dtype(),
               leaf = w.is_leaf(), act](const Tensor& gy) {
      const ConvFusion::BatchNorm norm{gamma.get(), beta.get(),   mean.get(), {},
                                       0.0,         invstd.get(), act};
      return conv2d_grad_weight(gy, in.get(), shape, o, dtype, leaf, &norm);
    });
  const bool want_x = r.needs(0), want_params = r.needs(1) || r.needs(2);
  if (want_x || want_params)
    r.gather({0, 1, 2},
             [in, gamma, beta, mean, invstd, w = r.save(w.data()), o, act, want_x, want_params](
                 Tensor gy, GradientSum* gx) -> std::vector<Tensor> {
               Tensor ga = conv2d_grad_input(gy, w.get(), in.get().shape(), o);
               gy = Tensor();
               BatchNormGrads g = batch_norm_train_grad(
                   std::move(ga), in.get(), gamma.get(), beta.get(), mean.get(), invstd.get(), act,
                   {}, want_x, want_params, false, std::exchange(*gx, {}));
               *gx = g.x;
               return {g.weight, g.bias};
             });
  if (r.needs(4))
    r.grad(4,
           [dtype = bias.data().dtype()](const Tensor& gy) { return conv2d_grad_bias(gy, dtype); });
  if (r.needs(5)) r.grad(5, [](const Tensor& gy) { return gy; });
  return r.finish(y);
}

Variable conv_transpose2d(const Variable& x, const Variable& w, const Variable& bias,
                          const ConvTranspose2dOptions& o) {
  Recorder r("conv_transpose2d", {x, w, bias});
  const Tensor y = conv_transpose2d(x.data(), w.data(), bias.data(), o);
  if (r.needs(0))
    r.grad(0, [w = r.save(w.data()), o](const Tensor& gy) {
      return conv_transpose2d_grad_input(gy, w.get(), o);
    });
  if (r.needs(1))
    r.grad(1, [x = r.save(x.data()), s = w.shape(), o, dtype = w.data().dtype(),
               leaf = w.is_leaf()](const Tensor& gy) {
      return conv_transpose2d_grad_weight(gy, x.get(), s, o, dtype, leaf);
    });
  if (r.needs(2))
    r.grad(2,
           [dtype = bias.data().dtype()](const Tensor& gy) { return conv2d_grad_bias(gy, dtype); });
  return r.finish(y);
}

}  // namespace mtcki
