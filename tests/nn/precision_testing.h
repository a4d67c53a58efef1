// What the precision tests of the CPU and of the GPU share: one pass of a network in some
// precision, and how near two passes are.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "nn/models/model.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::testing {

// Every family: projected and padded shortcuts, pre-activation, biased convolutions and pooling.
inline const std::vector<std::string> kFamilies = {"resnet8", "resnet8_a", "wrn10_1", "vgg8_w0.25"};
inline const std::vector<std::string> kGenerators = {"cmi", "dcgan"};

inline std::unique_ptr<nn::Classifier> classifier(const std::string& name) {
  nn::Init init(1);
  return nn::make_classifier({name, 3, 32, 10}, init);
}
inline std::unique_ptr<nn::Generator> generator(const std::string& name) {
  nn::Init init(1);
  return nn::make_generator({name, 32, 16, 3, 32}, init);
}

inline Tensor values(const Shape& shape, uint32_t stream) {
  Tensor t = Tensor::empty(shape);
  const Rng rng{7, stream, 0};
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = static_cast<float>(2 * rng.uniform(static_cast<uint64_t>(i)) - 1);
  return t;
}
inline Tensor labels(int64_t n, int64_t classes = 10) {
  Tensor t = Tensor::empty({n}, DType::i64);
  for (int64_t i = 0; i < n; ++i) t.data<int64_t>()[i] = i * 7 % classes;
  return t;
}

// |a - b| / |b| over all values.
inline double distance(const Tensor& a, const Tensor& b) {
  const auto va = a.to_vector<double>(), vb = b.to_vector<double>();
  EXPECT_EQ(va.size(), vb.size());
  double d = 0, n = 0;
  for (size_t i = 0; i < vb.size(); ++i) {
    d += (va[i] - vb[i]) * (va[i] - vb[i]);
    n += vb[i] * vb[i];
  }
  return std::sqrt(d / n);
}
// Of two lists of tensors, as two long vectors.
inline double cosine(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  EXPECT_EQ(a.size(), b.size());
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto va = a[i].to_vector<double>(), vb = b[i].to_vector<double>();
    EXPECT_EQ(va.size(), vb.size());
    for (size_t j = 0; j < va.size(); ++j) {
      ab += va[j] * vb[j];
      aa += va[j] * va[j];
      bb += vb[j] * vb[j];
    }
  }
  return ab / std::sqrt(aa * bb);
}

// One forward and backward.
struct Pass {
  Tensor output, feature, input_gradient;
  double loss = 0;
  std::vector<Tensor> gradients;      // of the parameters
  std::vector<Variable> norm_inputs;  // what a tap of the batch norms sees
};

inline std::vector<Tensor> take_gradients(nn::Module& m) {
  std::vector<Tensor> out;
  for (auto& [name, p] : m.named_parameters()) {
    if (!p->requires_grad()) continue;
    EXPECT_TRUE(p->grad().defined()) << name;
    if (!p->grad().defined()) continue;
    EXPECT_EQ(p->data().dtype(), DType::f32) << name;
    // Convolutions on a GPU may leave theirs as they computed it.
    if (p->grad().device().is_cpu() || p->data().rank() != 4) {
      EXPECT_EQ(p->grad().dtype(), DType::f32) << name;
    }
    out.push_back(p->grad());
  }
  m.zero_grad();
  return out;
}

inline Pass pass_of(nn::Classifier& m, nn::Precision precision, const Tensor& images,
                    const Tensor& classes) {
  m.set_precision(precision);
  const Variable x(images.clone(), true);
  const nn::Classifier::Output out = m.features(x, m.batch_norms());
  const Variable loss = cross_entropy(out.logits, classes);
  loss.backward();
  return {out.logits.data(), out.feature.data(), x.grad(),
          loss.item(),       take_gradients(m),  out.taps};
}

// The loss is a product with fixed values.
inline Pass pass_of(nn::Generator& m, nn::Precision precision, const Tensor& latents,
                    const Tensor& weights) {
  m.set_precision(precision);
  const Variable z(latents.clone(), true);
  const Variable images = m(z);
  const Variable loss = sum(mul(images, weights));
  loss.backward();
  return {images.data(), {}, z.grad(), loss.item(), take_gradients(m), {}};
}

}  // namespace mtcki::testing
