// Layers with PyTorch's parameter names, shapes and default initialisation (kaiming_uniform, a=sqrt
// 5, bias uniform +-1/sqrt(fan_in); batch norm 1 and 0). Initial values are drawn from `Init`.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/functions.h"
#include "nn/module.h"
#include "tensor/comm.h"
#include "tensor/rng.h"

namespace mtcki::nn {

// Hands every parameter its own random step, in order of construction.
struct Init {
  Rng rng{0, rng_stream("init"), 0};
  DType dtype = DType::f32;
  bool draw = true;  // false: zeros, for networks whose weights are loaded or only counted
  Init() = default;
  explicit Init(uint64_t seed) { rng.seed = seed; }
  static Init none() {
    Init init;
    init.draw = false;
    return init;
  }
  // The same element type without draws, for layers that their network initialises itself.
  Init undrawn() const {
    Init init = *this;
    init.draw = false;
    return init;
  }
  Rng next() { return rng.at(rng.step++); }
};

class BatchNorm2d;

class Conv2d : public Module {
 public:
  Conv2d(int64_t in, int64_t out, std::array<int64_t, 2> kernel /* height, width */,
         const Conv2dOptions& o, bool bias, Init& init);
  Conv2d(int64_t in, int64_t out, int64_t kernel, const Conv2dOptions& o, bool bias, Init& init);
  using Module::operator();
  // With what stands around it, in one pass where the kernels can (ops/conv/conv.h). Records no
  // gradient.
  Variable operator()(const Variable& x, ConvFusion fusion);
  Variable operator()(const Variable& x, const Variable& residual);  // conv(x) + residual
  // conv(act(before(x))) + residual as one op that does not store the batch norm's output
  // (bn_conv2d); `before` is in train mode.
  Variable operator()(const Variable& x, BatchNorm2d& before, Activation act,
                      const Variable& residual);
  // Whether that op costs the kernels no pass of its own over x.
  bool normalises(const Variable& x, Activation act) const;
  void reset_parameters(Init& init) override;
  double macs(const Shape& input, const Shape& output) const override;
  const Conv2dOptions& options() const { return options_; }
  Variable& weight;  // [out, in/groups, height, width]
  Variable* bias;    // [out] or null

 protected:
  Variable forward(const Variable& x) override;

 private:
  Conv2dOptions options_;
};

class ConvTranspose2d : public Module {
 public:
  ConvTranspose2d(int64_t in, int64_t out, int64_t kernel, const ConvTranspose2dOptions& o,
                  bool bias, Init& init);
  void reset_parameters(Init& init) override;
  double macs(const Shape& input, const Shape& output) const override;
  Variable& weight;  // [in, out/groups, k, k]
  Variable* bias;

 protected:
  Variable forward(const Variable& x) override;

 private:
  ConvTranspose2dOptions options_;
};

class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, bool bias, Init& init);
  void reset_parameters(Init& init) override;
  double macs(const Shape& input, const Shape& output) const override;
  // Computes in f32 under Precision::bf16 too: for the layer that makes the logits.
  void keep_f32() { keep_f32_ = true; }
  Variable& weight;  // [out, in]
  Variable* bias;

 protected:
  Variable forward(const Variable& x) override;

 private:
  bool keep_f32_ = false;
};

// Also batch norm over [N,C]. In train mode batch statistics are used and the running ones moved;
// in eval mode the running ones are used.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(int64_t channels, double eps = 1e-5, double momentum = 0.1,
                       DType dtype = DType::f32);
  void reset_parameters(Init& init) override;
  using Module::operator();
  // Fused form: act(bn(x) + residual).
  Variable operator()(const Variable& x, Activation act, const Variable& residual = {}) {
    return call(x, [&] { return fused(x, act, residual); });
  }
  double eps() const { return eps_; }
  // Eval mode: the moments of the input, which a BN-statistics loss asks for, are computed in the
  // pass of the forward and kept until take_moments() or the next forward.
  void keep_moments(bool on) { keeps_moments_ = on; }
  bool keeps_moments() const { return keeps_moments_; }
  MomentSums take_moments() { return std::exchange(moments_, {}); }
  // Train mode takes its statistics over the rows of all ranks (nn/parallel.h).
  void set_communicator(const Communicator& comm) { comm_ = &comm; }
  const Communicator& communicator() const { return *comm_; }
  Variable& weight;
  Variable& bias;
  Tensor& running_mean;
  Tensor& running_var;
  Tensor& num_batches_tracked;  // i64 scalar, always on the CPU

 protected:
  Variable forward(const Variable& x) override { return fused(x, {}, {}); }

 private:
  friend class Conv2d;  // takes the training pass of one before it into its own
  Variable fused(const Variable& x, Activation act, const Variable& residual);
  void count_batch();
  double eps_, momentum_;
  bool keeps_moments_ = false;
  MomentSums moments_;
  const Communicator* comm_ = &Communicator::self();
};

}  // namespace mtcki::nn
