#include <algorithm>

#include "tensor/cuda/blas.h"
#include "tensor/ops/conv/cuda.h"
#include "tensor/ops/conv/cuda_kernels.h"

namespace mtcki::conv_cuda::im2col {

namespace {

// A 1x1 kernel without stride and padding: the image is its own column matrix.
bool is_pointwise(const ConvProblem& d) {
  return d.r == 1 && d.s == 1 && d.stride_h == 1 && d.stride_w == 1 && d.pad_h == 0 && d.pad_w == 0;
}

// Images per chunk for columns of this element size.
int64_t chunk(const ConvProblem& d, DType columns) {
  const int64_t per_image = d.p * d.q * d.r * d.s * d.c * static_cast<int64_t>(size_of(columns));
  return std::clamp<int64_t>(kIm2colBytes / std::max<int64_t>(1, per_image), 1, d.n);
}

DType sum_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// Sizes that the three products share: `batch` groups side by side.
struct Sizes {
  int64_t cg, kg, taps, width;  // channels per group, taps * channels
  explicit Sizes(const ConvProblem& d)
      : cg(d.c / d.groups),
        kg(d.k / d.groups),
        taps(d.r * d.s),
        width(d.r * d.s * (d.c / d.groups)) {}
};

// f(first, images, buffer) for chunks of the images; the buffer takes their columns, and is
// undefined where the images are their own columns.
template <class F>
void for_chunks(const ConvProblem& d, DType columns, Device device, const F& f) {
  const bool direct = is_pointwise(d);
  const int64_t step = direct ? d.n : chunk(d, columns);
  const Tensor buffer =
      direct ? Tensor() : Tensor::empty({step * d.p * d.q, d.r * d.s * d.c}, columns, device);
  for (int64_t i = 0; i < d.n; i += step) f(i, std::min(step, d.n - i), buffer);
}

}  // namespace

void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& y, Math math) {
  const Sizes z(d);
  for_chunks(d, x.dtype(), x.device(), [&](int64_t i, int64_t images, const Tensor& buffer) {
    const Tensor in = x.slice(i, i + images);
    if (buffer.defined()) unfold(d, in, images, buffer);
    cuda::Gemm g;
    g.in = g.out = x.dtype();
    g.math = math;
    g.trans_b = true;
    g.m = images * d.p * d.q, g.n = z.kg, g.k = z.width, g.batch = d.groups;
    g.lda = z.taps * d.c, g.ldb = z.width, g.ldc = d.k;
    g.stride_a = z.width, g.stride_b = z.kg * z.width, g.stride_c = z.kg;
    cuda::gemm(g, (buffer.defined() ? buffer : in).raw(), w.raw(), y.slice(i, i + images).raw());
  });
}

void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                Math math) {
  const Sizes z(d);
  const DType sums = is_pointwise(d) ? gy.dtype() : sum_type(gy.dtype());
  for_chunks(d, sums, gy.device(), [&](int64_t i, int64_t images, const Tensor& buffer) {
    const Tensor out = gx.slice(i, i + images);
    cuda::Gemm g;
    g.in = gy.dtype(), g.out = sums;
    g.math = math;
    g.m = images * d.p * d.q, g.n = z.width, g.k = z.kg, g.batch = d.groups;
    g.lda = d.k, g.ldb = z.width, g.ldc = z.taps * d.c;
    g.stride_a = z.kg, g.stride_b = z.kg * z.width, g.stride_c = z.width;
    cuda::gemm(g, gy.slice(i, i + images).raw(), w.raw(), (buffer.defined() ? buffer : out).raw());
    if (buffer.defined()) fold(d, buffer, images, out);
  });
}

void grad_weight(const ConvProblem& d, const Tensor& gy, const Tensor& x, const Tensor& gw,
                 Math math) {
  const Sizes z(d);
  for_chunks(d, x.dtype(), x.device(), [&](int64_t i, int64_t images, const Tensor& buffer) {
    const Tensor in = x.slice(i, i + images);
    if (buffer.defined()) unfold(d, in, images, buffer);
    cuda::Gemm g;
    g.in = gy.dtype(), g.out = gw.dtype();
    g.math = math;
    g.trans_a = true;
    g.accumulate = i > 0;
    g.m = z.kg, g.n = z.width, g.k = images * d.p * d.q, g.batch = d.groups;
    g.lda = d.k, g.ldb = z.taps * d.c, g.ldc = z.width;
    g.stride_a = z.kg, g.stride_b = z.width, g.stride_c = z.kg * z.width;
    cuda::gemm(g, gy.slice(i, i + images).raw(), (buffer.defined() ? buffer : in).raw(), gw.raw());
  });
}

}  // namespace mtcki::conv_cuda::im2col
