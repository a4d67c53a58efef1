#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/op_error.h"
#include "tensor/ops/index.h"

namespace mtcki {

Variable reshape(const Variable& x, const Shape& shape) {
  Recorder r("reshape", {x});
  const Tensor y = x.data().reshape(shape);
  if (r.needs(0)) r.grad(0, [s = x.shape()](const Tensor& gy) { return gy.reshape(s); });
  return r.finish(y);
}

Variable to_layout(const Variable& x, Layout layout) {
  if (x.data().layout() == layout) return x;
  Recorder r("to_layout", {x});
  if (r.needs(0)) r.grad(0, [](const Tensor& gy) { return gy; });
  return r.finish(x.data().to(layout));
}

Variable flatten(const Variable& x) {
  if (!x.defined() || x.shape().rank() == 0)
    OpError("flatten", "input", x.data()).shape("the input needs rank 1 or more");
  int64_t rest = 1;
  for (int i = 1; i < x.shape().rank(); ++i) rest *= x.size(i);
  return reshape(x, {x.size(0), rest});
}

Variable cat(const std::vector<Variable>& parts, int dim) {
  Recorder r("cat", parts);
  std::vector<Tensor> data;
  for (const Variable& p : parts) data.push_back(p.data());
  const Tensor y = cat(data, dim);
  int64_t begin = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t end = begin + parts[i].size(dim);
    if (r.needs(static_cast<int>(i)))
      r.grad(static_cast<int>(i),
             [dim, begin, end](const Tensor& gy) { return narrow(gy, dim, begin, end); });
    begin = end;
  }
  return r.finish(y);
}

Variable narrow(const Variable& x, int dim, int64_t begin, int64_t end) {
  Recorder r("narrow", {x});
  const Tensor y = narrow(x.data(), dim, begin, end);
  if (r.needs(0))
    r.gather({0}, [s = x.shape(), dim, begin](const Tensor& gy, GradientSum* gx) {
      gx->add(narrow_grad(gy, s, dim, begin, gx->take_sum()));
      return std::vector<Tensor>();
    });
  return r.finish(y);
}

Variable index_select(const Variable& x, const Tensor& index) {
  Recorder r("index_select", {x});
  const Tensor y = index_select(x.data(), index);
  if (r.needs(0))
    r.grad(0, [s = x.shape(), index = r.save(index)](const Tensor& gy) {
      return index_select_grad(gy, index.get(), s);
    });
  return r.finish(y);
}

Variable transpose(const Variable& x) {
  Recorder r("transpose", {x});
  const Tensor y = transpose(x.data());
  if (r.needs(0)) r.grad(0, [](const Tensor& gy) { return transpose(gy); });
  return r.finish(y);
}

Variable permute(const Variable& x, const std::vector<int>& order) {
  Recorder r("permute", {x});
  const Tensor y = permute(x.data(), order);
  if (r.needs(0)) {
    std::vector<int> back(order.size());
    for (size_t i = 0; i < order.size(); ++i)
      back[static_cast<size_t>(order[i])] = static_cast<int>(i);
    r.grad(0, [back](const Tensor& gy) { return permute(gy, back); });
  }
  return r.finish(y);
}

Variable channel_shuffle(const Variable& x, int64_t groups) {
  Recorder r("channel_shuffle", {x});
  const Tensor y = channel_shuffle(x.data(), groups);
  if (r.needs(0))
    r.grad(0, [back = x.size(1) / groups](const Tensor& gy) { return channel_shuffle(gy, back); });
  return r.finish(y);
}

Variable subsample_pad_channels(const Variable& x, int64_t stride, int64_t before, int64_t after) {
  Recorder r("subsample_pad_channels", {x});
  const Tensor y = subsample_pad_channels(x.data(), stride, before, after);
  if (r.needs(0))
    r.grad(0, [s = x.shape(), stride, before](const Tensor& gy) {
      return subsample_pad_channels_grad(gy, s, stride, before);
    });
  return r.finish(y);
}

Variable cast(const Variable& x, DType dtype) {
  Recorder r("cast", {x});
  if (r.needs(0) && !is_floating(dtype))
    OpError("cast", "input", x.data())
        .hint("cast detach()ed values, or under NoGradScope")
        .dtype("a gradient cannot pass through ", name_of(dtype));
  const Tensor y = x.data().to(dtype);
  if (r.needs(0)) r.grad(0, [d = x.data().dtype()](const Tensor& gy) { return gy.to(d); });
  return r.finish(y);
}

}  // namespace mtcki
