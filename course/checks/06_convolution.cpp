// Judges exercise 6: columns by hand, conv2d, and both gradients of conv2d as matrix products.
#include "course/checks/judge.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

void small(Judge& judge) {
  const Tensor image = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 3, 3});
  const Tensor columns = unfold(image, 2, 1, 0);
  judge.close(
      "unfold of 1..9 with a 2x2 kernel", columns,
      Tensor::from(std::vector<float>{1, 2, 4, 5, 2, 3, 5, 6, 4, 5, 7, 8, 5, 6, 8, 9}, {4, 4}));
  const Tensor kernel = Tensor::from(std::vector<float>{1, 0, 0, -1}, {1, 4});
  judge.close("the kernel (1 0; 0 -1) on it", matmul(kernel, columns), Tensor::full({1, 4}, -4.0));
  judge.close("fold of ones counts the patches of each pixel",
              fold(Tensor::full({4, 4}, 1.0), {1, 3, 3}, 2, 1, 0),
              Tensor::from(std::vector<float>{1, 2, 1, 2, 4, 2, 1, 2, 1}, {1, 3, 3}));
}

void against_conv2d(Judge& judge, int64_t stride, int64_t padding) {
  const std::string how =
      " (stride " + std::to_string(stride) + ", padding " + std::to_string(padding) + ")";
  const int64_t C = 3, K = 5, k = 3;
  const Shape image_shape{C, 9, 8};
  const Variable x(randn({1, C, 9, 8}, Rng{6, 1, 0}), true);
  const Variable w(randn({K, C, k, k}, Rng{6, 2, 0}), true);
  const Variable y = conv2d(x, w, {}, Conv2dOptions(stride, padding));
  const Tensor gy = randn(y.shape(), Rng{6, 3, 0});
  y.backward(gy.to(y.data().layout()));

  const Tensor columns = unfold(x.data().reshape(image_shape), k, stride, padding);
  const Tensor rows = w.data().reshape({K, C * k * k});
  judge.close("W · columns is conv2d" + how, matmul(rows, columns).reshape(y.shape()),
              y.data().plain());
  const Tensor g = gy.reshape({K, y.numel() / K});
  judge.close("gy · columnsᵀ is the gradient of the weights" + how,
              matmul(g, columns, false, true).reshape(w.shape()), w.grad().plain());
  judge.close(
      "fold(Wᵀ · gy) is the gradient of the image" + how,
      fold(matmul(rows, g, true, false), image_shape, k, stride, padding).reshape(x.shape()),
      x.grad().plain());
}

void check(Judge& judge) {
  small(judge);
  against_conv2d(judge, 1, 1);
  against_conv2d(judge, 2, 1);
  against_conv2d(judge, 2, 0);
}

const Chapter chapter(6, "Convolution as a product", check);

}  // namespace

}  // namespace mtcki::course
