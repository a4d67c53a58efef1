// bf16 convolutions by matrix tiles against the definition in f64: with the CPU's tiles where it
// has them, and the same code with tiles of plain loops everywhere.
#include <gtest/gtest.h>

#include <vector>

#include "tensor/kernels/transpose.h"
#include "tensor/ops/conv/amx_cpu.h"
#include "tensor/parallel.h"
#include "tests/tensor/ops/conv/conv_testing.h"

namespace mtcki::conv_amx_test {
namespace {

using namespace conv_testing;  // NOLINT: a test's vocabulary

struct Problem {
  int64_t n, c, k, h, w, r, s;
  Conv2dOptions options;
  std::string text() const {
    return str("n", n, " ", c, "->", k, " ", h, "x", w, " k", r, "x", s, " stride ",
               options.stride[0], " pad ", options.padding[0], " dilation ", options.dilation[0]);
  }
};

// Every border, stride and remainder of images; several bands, several parts, and many channels.
std::vector<Problem> problems() {
  Conv2dOptions dilated(1, 2);
  dilated.dilation = {2, 2};
  Conv2dOptions flat(1, 0);
  flat.padding = {0, 1};
  return {{1, 32, 32, 1, 1, 3, 3, Conv2dOptions(1, 1)},
          {5, 32, 64, 6, 5, 3, 3, Conv2dOptions(1, 1)},
          {33, 64, 32, 5, 4, 3, 3, Conv2dOptions(1, 0)},
          {40, 32, 96, 7, 6, 3, 3, Conv2dOptions(2, 1)},
          {3, 64, 64, 9, 8, 1, 1, Conv2dOptions(2, 0)},
          {2, 32, 32, 8, 9, 5, 5, Conv2dOptions(3, 2)},
          {2, 32, 32, 7, 7, 3, 3, dilated},
          {34, 32, 32, 6, 4, 1, 3, flat},
          {2, 32, 32, 32, 32, 3, 3, Conv2dOptions(1, 1)},
          {3, 192, 192, 4, 4, 3, 3, Conv2dOptions(1, 1)},
          {2, 32, 32, 4, 4, 3, 3, Conv2dOptions(1, 3)}};
}

// Values in channels_last memory, and back.
std::vector<bfloat16> last(const Tensor& t) {
  const std::vector<bfloat16> plain = t.to(DType::bf16).to_vector<bfloat16>();
  const int64_t c = t.size(1), hw = t.size(2) * t.size(3);
  std::vector<bfloat16> out(plain.size());
  for (int64_t i = 0; i < t.numel(); ++i)
    out[static_cast<size_t>((i / (c * hw) * hw + i % hw) * c + i / hw % c)] =
        plain[static_cast<size_t>(i)];
  return out;
}
Tensor plain(const std::vector<bfloat16>& values, const Shape& shape) {
  Tensor out = Tensor::zeros(shape, DType::f64);
  const int64_t c = shape[1], hw = shape[2] * shape[3];
  for (int64_t i = 0; i < out.numel(); ++i)
    out.data<double>()[i] = static_cast<float>(
        values[static_cast<size_t>((i / (c * hw) * hw + i % hw) * c + i / hw % c)]);
  return out;
}

template <class Tiles>
void check(const Problem& p) {
  const Conv2dOptions& o = p.options;
  const auto rounded = [](const Tensor& t) { return t.to(DType::bf16).to(DType::f64); };
  const Tensor x = rounded(noise({p.n, p.c, p.h, p.w}, 1)),
               w = rounded(noise({p.k, p.c, p.r, p.s}, 2));
  const Tensor bias = noise({p.k}, 3).to(DType::f32), y = conv2d(x, w, bias.to(DType::f64), o);
  const Tensor gy = rounded(noise(y.shape(), 4)), w32 = w.to(DType::f32);
  const ConvProblem d{p.n,          p.c,           p.h,           p.w,
                      p.k,          p.r,           p.s,           y.size(2),
                      y.size(3),    o.stride[0],   o.stride[1],   o.padding[0],
                      o.padding[1], o.dilation[0], o.dilation[1], 1};
  ASSERT_TRUE(conv_amx::applies(d)) << p.text();
  std::vector<bfloat16> out(static_cast<size_t>(y.numel())), gx(static_cast<size_t>(x.numel()));
  Tensor gw = Tensor::zeros(w.shape());
  ConvEpilogue epilogue;
  epilogue.bias = bias.data<float>();
  conv_amx::forward<Tiles>(d, last(x).data(), w32.data<float>(), epilogue, out.data());
  conv_amx::grad_input<Tiles>(d, last(gy).data(), w32.data<float>(), gx.data());
  conv_amx::grad_weight<Tiles>(d, last(gy).data(), last(x).data(), gw.data<float>());
  EXPECT_LT(error(plain(out, y.shape()), y), 4e-3) << p.text();
  EXPECT_LT(error(plain(gx, x.shape()), conv2d_grad_input(gy, w, x.shape(), o)), 4e-3) << p.text();
  EXPECT_LT(error(gw.to(DType::f64), conv2d_grad_weight(gy, x, w.shape(), o)), 1e-5) << p.text();
}

TEST(ConvAmx, EqualsTheDefinitionWithPlainTiles) {
  for (const Problem& p : problems()) check<amx::PlainTiles>(p);
}

TEST(ConvAmx, EqualsTheDefinitionWithTheTilesOfThisCpu) {
  if (!amx::available()) GTEST_SKIP() << "this CPU has no bf16 tiles (amx_bf16)";
  for (const Problem& p : problems()) check<amx::Tiles>(p);
}

TEST(ConvAmx, AnyNumberOfThreads) {
  const int before = num_threads();
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    check<amx::PlainTiles>({70, 32, 32, 5, 5, 3, 3, Conv2dOptions(1, 1)});
    check<amx::PlainTiles>({2, 192, 192, 3, 3, 3, 3, Conv2dOptions(1, 1)});
  }
  set_num_threads(before);
}

TEST(ConvAmx, Transposes) {
  uint32_t from[256], to[10 * 20 + 16] = {};
  const void* rows[16];
  for (uint32_t i = 0; i < 256; ++i) from[i] = i + 1;
  for (int i = 0; i < 16; ++i) rows[i] = from + 16 * i;
  transpose_square<16>(rows, to, 20, 10);  // ten columns, 20 values apart
  for (uint32_t i = 0; i < std::size(to); ++i)
    EXPECT_EQ(to[i], i / 20 < 10 && i % 20 < 16 ? i % 20 * 16 + i / 20 + 1 : 0u) << i;
}

}  // namespace
}  // namespace mtcki::conv_amx_test
