// Every differentiable function of autograd/functions.h on tensors of a CIFAR network: forward, and
// backward alone. Batch 128 unless MTCKI_BENCH_BATCH says otherwise.
//
//   ops_bench --benchmark_filter='^relu/'
#include <memory>

#include "autograd/functions.h"
#include "bench_common.h"
#include "tensor/ops/augment.h"
#include "tensor/rng.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

using Inputs = std::vector<Variable>;
using Function = std::function<Variable(const Inputs&)>;

struct Op {
  std::string name;
  std::function<Inputs(DType)> inputs;
  Function f;
};

Variable leaf(const Shape& shape, DType dtype, uint64_t step = 0) {
  return {bench::noise(shape, dtype, step), true};
}
Variable positive_leaf(const Shape& shape, DType dtype) {
  Tensor x = bench::noise(shape, dtype).clone();
  x.fill_(1.5);
  return {x, true};
}
Tensor on_device(const Tensor& t) { return t.to(bench::device()); }
Tensor channels(int64_t c, double value) {
  return Tensor::full({c}, value, DType::f32, bench::device());
}

std::vector<Op> ops() {
  const int64_t n = bench::batch();
  const Shape image{n, 3, 32, 32}, act{n, 64, 16, 16}, rows{n, 10}, feature{n, 512};
  const auto one = [](const Shape& s) { return [s](DType d) { return Inputs{leaf(s, d)}; }; };
  const auto two = [](const Shape& s) {
    return [s](DType d) { return Inputs{leaf(s, d), leaf(s, d, 1)}; };
  };
  const auto positive = [](const Shape& s) {
    return [s](DType d) { return Inputs{positive_leaf(s, d)}; };
  };
  const Rng rng{0, rng_stream("bench/index"), 0};
  const Tensor labels = on_device(randint(0, 10, {n}, rng));
  const Tensor order = on_device(randperm(n, rng));
  const Tensor offset = on_device(Tensor::full({n, 2}, 3, DType::i32));
  const Tensor flip = on_device(Tensor::zeros({n}, DType::boolean));
  Tensor box = Tensor::empty({n, 4});
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < 4; ++j) box.data<float>()[4 * i + j] = j < 2 ? 3.0f : 24.0f;
  box = on_device(box);
  const Tensor mean3 = channels(3, 0.5), std3 = channels(3, 0.25);
  const Tensor mean64 = channels(64, 0.0), var64 = channels(64, 1.0);
  const auto norm_inputs = [act](DType d) {
    return Inputs{leaf(act, d), {channels(64, 1.0), true}, {channels(64, 0.0), true}};
  };
  const Activation relu_after = Activation::relu();
  const Tensor weights = channels(n, 1.0 / static_cast<double>(n));

  std::vector<Op> all{
      {"add", two(act), [](const Inputs& x) { return add(x[0], x[1]); }},
      {"sub", two(act), [](const Inputs& x) { return sub(x[0], x[1]); }},
      {"mul", two(act), [](const Inputs& x) { return mul(x[0], x[1]); }},
      {"div",
       [act](DType d) {
         return Inputs{leaf(act, d), positive_leaf(act, d)};
       },
       [](const Inputs& x) { return div(x[0], x[1]); }},
      {"add_scalar", one(act), [](const Inputs& x) { return add(x[0], 0.5); }},
      {"mul_scalar", one(act), [](const Inputs& x) { return mul(x[0], 0.5); }},
      {"neg", one(act), [](const Inputs& x) { return neg(x[0]); }},
      {"exp", one(act), [](const Inputs& x) { return exp(x[0]); }},
      {"log", positive(act), [](const Inputs& x) { return log(x[0]); }},
      {"sqrt", positive(act), [](const Inputs& x) { return sqrt(x[0]); }},
      {"square", one(act), [](const Inputs& x) { return square(x[0]); }},
      {"abs", one(act), [](const Inputs& x) { return abs(x[0]); }},
      {"relu", one(act), [](const Inputs& x) { return relu(x[0]); }},
      {"leaky_relu", one(act), [](const Inputs& x) { return leaky_relu(x[0], 0.2); }},
      {"sigmoid", one(act), [](const Inputs& x) { return sigmoid(x[0]); }},
      {"tanh", one(act), [](const Inputs& x) { return tanh(x[0]); }},
      {"sum", one(act), [](const Inputs& x) { return sum(x[0]); }},
      {"mean", one(act),
       [](const Inputs& x) {
         return mean(x[0], {2, 3});
       }},
      {"norm", one(act), [](const Inputs& x) { return norm(x[0]); }},
      {"reshape", one(feature),
       [n](const Inputs& x) {
         return reshape(x[0], {n, 8, 64});
       }},
      {"cat", two(act),
       [](const Inputs& x) {
         return cat({x[0], x[1]}, 1);
       }},
      {"narrow", one(act), [](const Inputs& x) { return narrow(x[0], 1, 16, 48); }},
      {"index_select", one(feature),
       [order](const Inputs& x) { return index_select(x[0], order); }},
      {"transpose", one(feature), [](const Inputs& x) { return transpose(x[0]); }},
      {"subsample_pad_channels", one(act),
       [](const Inputs& x) { return subsample_pad_channels(x[0], 2, 32, 32); }},
      {"matmul",
       [](DType d) {
         return Inputs{leaf({512, 512}, d), leaf({512, 512}, d, 1)};
       },
       [](const Inputs& x) { return matmul(x[0], x[1]); }},
      {"linear",
       [feature](DType d) {
         return Inputs{leaf(feature, d), leaf({10, 512}, DType::f32), leaf({10}, DType::f32)};
       },
       [](const Inputs& x) { return linear(x[0], x[1], x[2]); }},
      {"conv2d",
       [act](DType d) {
         return Inputs{leaf(act, d), leaf({64, 64, 3, 3}, DType::f32)};
       },
       [](const Inputs& x) { return conv2d(x[0], x[1], {}, Conv2dOptions(1, 1)); }},
      {"conv_transpose2d",
       [act](DType d) {
         return Inputs{leaf(act, d), leaf({64, 32, 4, 4}, DType::f32)};
       },
       [](const Inputs& x) {
         return conv_transpose2d(x[0], x[1], {}, ConvTranspose2dOptions(2, 1));
       }},
      {"batch_norm_train", norm_inputs,
       [mean64, var64, relu_after](const Inputs& x) {
         return batch_norm_train(x[0], x[1], x[2], mean64, var64, 0.1, 1e-5, relu_after);
       }},
      {"batch_norm_eval", norm_inputs,
       [mean64, var64, relu_after](const Inputs& x) {
         return batch_norm_eval(x[0], x[1], x[2], mean64, var64, 1e-5, relu_after);
       }},
      {"bn_statistics", one(act),
       [mean64, var64](const Inputs& x) { return bn_statistics(x[0], mean64, var64); }},
      {"max_pool2d", one(act), [](const Inputs& x) { return max_pool2d(x[0], Pool2dOptions(2)); }},
      {"avg_pool2d", one(act), [](const Inputs& x) { return avg_pool2d(x[0], Pool2dOptions(2)); }},
      {"adaptive_avg_pool2d", one(act),
       [](const Inputs& x) { return adaptive_avg_pool2d(x[0], 4, 4); }},
      {"global_avg_pool", one(act), [](const Inputs& x) { return global_avg_pool(x[0]); }},
      {"upsample_nearest2d", one(act),
       [](const Inputs& x) { return upsample_nearest2d(x[0], 32, 32); }},
      {"pad_crop_flip", one(image),
       [offset, flip](const Inputs& x) { return pad_crop_flip(x[0], 4, offset, flip); }},
      {"resized_crop_flip", one(image),
       [box, flip](const Inputs& x) { return resized_crop_flip(x[0], box, flip, 32, 32); }},
      {"normalize_channels", one(image),
       [mean3, std3](const Inputs& x) { return normalize_channels(x[0], mean3, std3); }},
      {"softmax", one(rows), [](const Inputs& x) { return softmax(x[0]); }},
      {"log_softmax", one(rows), [](const Inputs& x) { return log_softmax(x[0]); }},
      {"cross_entropy", one(rows),
       [labels](const Inputs& x) { return cross_entropy(x[0], labels); }},
      {"kl_div", two(rows), [](const Inputs& x) { return kl_div(x[0], x[1], 4.0); }},
      {"js_div", two(rows), [](const Inputs& x) { return js_div(x[0], x[1], 4.0); }},
      {"normalize", one(feature), [](const Inputs& x) { return normalize(x[0]); }},
      {"info_nce",
       [n](DType d) {
         return Inputs{leaf({n, 256}, d), leaf({n + 4096, 256}, d, 1)};
       },
       [weights](const Inputs& x) { return info_nce(x[0], x[1], 0.1, weights); }},
  };
  return all;
}

void register_cases() {
  for (const nn::Precision precision : {nn::Precision::f32, nn::Precision::bf16}) {
    const DType dtype = precision == nn::Precision::bf16 ? DType::bf16 : DType::f32;
    for (const Op& op : ops()) {
      const std::string name = op.name + "/" + nn::name_of(precision);
      bench::add(name + "/forward", [=] {
        const auto inputs = std::make_shared<Inputs>(op.inputs(dtype));
        bench::Case c;
        c.precision = precision;
        c.captured = true;
        c.work = [=] {
          const NoGradScope no_grad;
          op.f(*inputs);
        };
        return c;
      });
      bench::add(name + "/backward", [=] {
        const auto inputs = std::make_shared<Inputs>(op.inputs(dtype));
        const auto y = std::make_shared<Variable>();
        const Variable once = op.f(*inputs);
        const Tensor seed = Tensor::full(once.shape(), 1.0, once.data().dtype(), bench::device())
                                .to(once.data().layout());
        bench::Case c;
        c.precision = precision;
        c.captured = true;
        c.prepare = [=] {
          for (Variable& v : *inputs)
            if (v.requires_grad()) v.zero_grad();
          *y = op.f(*inputs);
        };
        c.work = [=] { y->backward(seed); };
        return c;
      });
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::main(argc, argv, register_cases); }
