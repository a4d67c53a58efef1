#include "tensor/ops/keep_best.h"

#include "tensor/ops/keep_best_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

void copy_if_less_cpu(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                      const std::vector<Tensor>& dst) {
  if (!(*score.data<float>() < *best.data<float>())) return;
  for (size_t i = 0; i < src.size(); ++i) Tensor(dst[i]).copy_(src[i]);
  best.copy_(score);
}

void copy_if_less_(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                   const std::vector<Tensor>& dst) {
  const char* op = "copy_if_less_";
  for (const Tensor& t : {score, best})
    if (!t.defined() || t.dtype() != DType::f32 || t.numel() != 1)
      OpError(op, "score", score, "best", best).dtype("score and best need to be one f32 each");
  check_same_device(op, "score", score, "best", best);
  if (src.size() != dst.size())
    OpError(op, "score", score).argument(src.size(), " sources for ", dst.size(), " destinations");
  std::vector<Tensor> from;
  double moved = 0;
  for (size_t i = 0; i < src.size(); ++i) {
    if (!src[i].defined() || !dst[i].defined())
      OpError(op, "src", src[i], "dst", dst[i]).argument("a tensor is undefined");
    check_same_shape(op, "src", src[i], "dst", dst[i]);
    check_same_dtype_device(op, "src", src[i], "dst", dst[i]);
    check_same_device(op, "src", src[i], "score", score);
    from.push_back(src[i].to(dst[i].layout()));
    moved += 2.0 * static_cast<double>(dst[i].nbytes());
  }
  ProfileScope scope(op, 0, {moved, &score});
  MTCKI_ON_DEVICE(score, copy_if_less, score, best, from, dst);
}

}  // namespace mtcki
