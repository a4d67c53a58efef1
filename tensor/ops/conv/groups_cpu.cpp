// Grouped convolution of f32 activations whose groups are whole channel blocks: each group is an
// ordinary convolution, by whichever kernel is the best for one, on a copy of its channels. A
// group's weights are contiguous, its channels are so within an image.
#include <cstring>

#include "tensor/ops/conv/kernels.h"
#include "tensor/ops/conv/select.h"
#include "tensor/parallel.h"

namespace mtcki::conv_groups {

namespace {

// The part of one group in an activation of `size` numbers per image and group.
struct Part {
  int64_t images, groups, size;

  void take(const float* all, int64_t group, float* part) const {
    parallel_for(images, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        std::memcpy(part + n * size, all + (n * groups + group) * size, bytes());
    });
  }
  void put(const float* part, int64_t group, float* all) const {
    parallel_for(images, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        std::memcpy(all + (n * groups + group) * size, part + n * size, bytes());
    });
  }
  size_t bytes() const { return static_cast<size_t>(size) * sizeof(float); }
  Scratch scratch() const { return Scratch(static_cast<size_t>(images) * bytes()); }
};

struct Groups {
  ConvProblem one;  // of a group
  Part x, y;
  int64_t w_size;
  explicit Groups(const ConvProblem& d)
      : one(d),
        x{d.n, d.groups, d.c / d.groups * d.h * d.w},
        y{d.n, d.groups, d.k / d.groups * d.p * d.q},
        w_size(d.w_size() / d.groups) {
    one.c = d.c / d.groups;
    one.k = d.k / d.groups;
    one.groups = 1;
  }
};

}  // namespace

bool applies(const ConvProblem& d) {
  return d.groups > 1 && is_blocked(d.c / d.groups) && is_blocked(d.k / d.groups);
}

void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  const Groups g(d);
  const ConvKernel<float>& kernel = select_conv(g.one, ConvPass::forward);
  const Scratch in = g.x.scratch(), out = g.y.scratch();
  // A residual lies as y does, and is added there.
  ConvEpilogue own = epilogue;
  own.residual = nullptr;
  own.relu = epilogue.relu && !epilogue.residual;
  for (int64_t i = 0; i < d.groups; ++i) {
    g.x.take(x, i, in.as());
    kernel.forward(g.one, in.as(), w + i * g.w_size, own.from(i * g.one.k, 0), out.as());
    g.y.put(out.as(), i, y);
  }
  if (!epilogue.residual) return;
  parallel_for(d.y_size(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float v = y[i] + epilogue.residual[i];
      y[i] = epilogue.relu && v < 0 ? 0 : v;
    }
  });
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  const Groups g(d);
  const ConvKernel<float>& kernel = select_conv(g.one, ConvPass::grad_input);
  const Scratch in = g.y.scratch(), out = g.x.scratch();
  for (int64_t i = 0; i < d.groups; ++i) {
    g.y.take(gy, i, in.as());
    kernel.grad_input(g.one, in.as(), w + i * g.w_size, out.as());
    g.x.put(out.as(), i, gx);
  }
}

void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  const Groups g(d);
  const ConvKernel<float>& kernel = select_conv(g.one, ConvPass::grad_weight);
  const Scratch in = g.x.scratch(), out = g.y.scratch();
  for (int64_t i = 0; i < d.groups; ++i) {
    g.x.take(x, i, in.as());
    g.y.take(gy, i, out.as());
    kernel.grad_weight(g.one, out.as(), in.as(), gw + i * g.w_size);
  }
}

}  // namespace mtcki::conv_groups
