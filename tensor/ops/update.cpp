#include "tensor/ops/update.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/op_util.h"
#include "tensor/ops/update_kernels.h"
#include "tensor/ops/weight_copies.h"

namespace mtcki {

namespace {

void check_list(const char* op, const char* name, const TensorList& list, const TensorList& like) {
  if (list.size() != like.size())
    throw ShapeError(str(op, ": ", list.size(), " ", name, " for ", like.size(), " tensors"));
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].defined())
      OpError(op, "tensor", like[i], name, list[i])
          .argument(name, " ", i, " is undefined; leave out what has none");
    if (list[i].shape() != like[i].shape())
      OpError(op, "tensor", like[i], name, list[i])
          .shape(name, " ", i, " needs the tensor's shape");
    if (list[i].device() != like[i].device())
      OpError(op, "tensor", like[i], name, list[i]).device(name, " ", i, " is on another device");
  }
}

void check_params(const char* op, const TensorList& params) {
  for (const Tensor& p : params) {
    check_floating(op, "tensor", p);
    if (p.device() != params.front().device())
      OpError(op, "tensor", p, "first", params.front()).device("needs all tensors on one device");
  }
}

// What kernels work on: each entry in the layout of `like`, computed in f32 for bf16. Entries that
// are written in place come back through write_back when they had to be converted.
TensorList aligned(const TensorList& list, const TensorList& like) {
  TensorList out;
  for (size_t i = 0; i < list.size(); ++i)
    out.push_back(list[i].to(like[i].layout()).to(widen(like[i]).dtype()));
  return out;
}

// What is only read: the GPU takes bf16 beside f32 without a copy.
TensorList aligned_source(const TensorList& list, const TensorList& like) {
  TensorList out;
  for (size_t i = 0; i < list.size(); ++i) {
    const Tensor t = list[i].to(like[i].layout());
    const bool as_is = t.device().is_cuda() && is_bf16(t) && like[i].dtype() == DType::f32;
    out.push_back(as_is ? t : t.to(widen(like[i]).dtype()));
  }
  return out;
}

void write_back(const TensorList& stored, const TensorList& computed) {
  for (size_t i = 0; i < stored.size(); ++i) {
    if (stored[i].raw() == computed[i].raw()) {
      stored[i].bump_version();
    } else {
      stored[i].copy_(computed[i]);
    }
  }
}

double count(const TensorList& list) {
  double n = 0;
  for (const Tensor& t : list) n += static_cast<double>(t.numel());
  return n;
}
Traffic bytes(const TensorList& list) {
  Traffic n;
  for (const Tensor& t : list) n = n + bytes_of(t);
  return n;
}

}  // namespace

void sgd_update_(const TensorList& params, const TensorList& grads, const TensorList& buffers,
                 const SgdUpdate& u) {
  const char* op = "sgd_update_";
  check_params(op, params);
  check_list(op, "gradient", grads, params);
  if (u.momentum != 0) check_list(op, "buffer", buffers, params);
  const TensorList p = aligned(params, params), g = aligned_source(grads, params);
  const TensorList b = u.momentum != 0 ? aligned(buffers, params) : TensorList();
  ProfileScope scope(op, 6 * count(p), 2 * bytes(p) + bytes(g) + 2 * bytes(b));
  if (p.empty()) return;
  KeptCopies copies(p);
  MTCKI_ON_DEVICE(p.front(), sgd_update, p, g, b, u, copies);
  write_back(params, p);
  copies.written();
  if (u.momentum != 0) write_back(buffers, b);
}

void adam_update_(const TensorList& params, const TensorList& grads, const TensorList& exp_avg,
                  const TensorList& exp_avg_sq, const AdamUpdate& u) {
  const char* op = "adam_update_";
  check_params(op, params);
  check_list(op, "gradient", grads, params);
  check_list(op, "exp_avg", exp_avg, params);
  check_list(op, "exp_avg_sq", exp_avg_sq, params);
  if (!u.step.on_device() && u.step.value() < 1)
    throw Error(str(op, ": step counts from 1, got ", u.step.value()));
  const TensorList p = aligned(params, params), g = aligned_source(grads, params);
  const TensorList m = aligned(exp_avg, params), v = aligned(exp_avg_sq, params);
  ProfileScope scope(op, 14 * count(p), 2 * (bytes(p) + bytes(m) + bytes(v)) + bytes(g));
  if (p.empty()) return;
  KeptCopies copies(p);
  MTCKI_ON_DEVICE(p.front(), adam_update, p, g, m, v, u, copies);
  write_back(params, p);
  copies.written();
  write_back(exp_avg, m);
  write_back(exp_avg_sq, v);
}

void ema_update_(const TensorList& dst, const TensorList& src, const Scalar& decay) {
  const char* op = "ema_update_";
  check_params(op, dst);
  check_list(op, "source", src, dst);
  const TensorList d = aligned(dst, dst), s = aligned_source(src, dst);
  ProfileScope scope(op, 3 * count(d), 2 * bytes(d) + bytes(s));
  if (d.empty()) return;
  MTCKI_ON_DEVICE(d.front(), ema_update, d, s, decay);
  write_back(dst, d);
}

namespace {

// Norm and scale (when it is wanted) of tensors on the GPU.
void norm_on_gpu(const char* op, const TensorList& tensors, const Tensor& norm, const Tensor& scale,
                 double max_norm) {
  ProfileScope scope(op, 2 * count(tensors), bytes(tensors));
  global_norm_cuda(tensors, norm, scale, max_norm);
}

Tensor one_value(const TensorList& like) {
  return Tensor::empty({}, DType::f32, like.front().device());
}

}  // namespace

double global_norm(const TensorList& tensors) {
  const char* op = "global_norm";
  check_params(op, tensors);
  if (!tensors.empty() && tensors.front().device().is_cuda())
    return global_norm_tensor(tensors).item();
  TensorList wide;
  for (const Tensor& t : tensors) wide.push_back(widen(t));
  ProfileScope scope(op, 2 * count(tensors), bytes(wide));
  return std::sqrt(sum_of_squares_cpu(wide));
}

Tensor global_norm_tensor(const TensorList& tensors) {
  const char* op = "global_norm";
  check_params(op, tensors);
  if (tensors.empty() || tensors.front().device().is_cpu())
    return Tensor::scalar(global_norm(tensors), DType::f32);
  const Tensor norm = one_value(tensors);
  norm_on_gpu(op, tensors, norm, Tensor(), 0);
  return norm;
}

double clip_scale(double norm, double max_norm) {
  const double scale = max_norm / (norm + 1e-6);
  return scale > 1.0 ? 1.0 : scale;  // a NaN stays
}

Scalar clip_scale(const TensorList& grads, double max_norm, Tensor* norm) {
  const char* op = "clip_scale";
  check_params(op, grads);
  if (grads.empty() || grads.front().device().is_cpu()) {
    const double value = global_norm(grads);
    if (norm) *norm = Tensor::scalar(value, DType::f64);
    return clip_scale(value, max_norm);
  }
  const Tensor scale = one_value(grads), value = one_value(grads);
  norm_on_gpu(op, grads, value, scale, max_norm);
  if (norm) *norm = value;
  return Scalar(scale);
}

}  // namespace mtcki
