// What the exercises of the course define, chapter by chapter (docs/course/README.md). Exercises,
// solutions and what judges them (checks/) include this header, so all agree on the signatures.
#pragma once

#include <memory>
#include <vector>

#include "autograd/functions.h"
#include "nn/chain.h"

namespace mtcki::data {
class Loader;
}
namespace mtcki::optim {
class Optimizer;
struct Schedule;
}  // namespace mtcki::optim

namespace mtcki::course {

// Stands where the reader is to write something, and says what. Never returns.
[[noreturn]] void hole(const char* what);

// 1: where element (n, c, h, w) of a tensor [N,C,H,W] lies in memory, counted in elements.
int64_t offset_plain(const Shape& shape, int64_t n, int64_t c, int64_t h, int64_t w);
int64_t offset_channels_last(const Shape& shape, int64_t n, int64_t c, int64_t h, int64_t w);
int64_t offset_blocked(const Shape& shape, int64_t block, int64_t n, int64_t c, int64_t h,
                       int64_t w);

// 2: the shape of a + b; ShapeError when they do not fit. And its adjoint: the gradient of a value
// of `shape` that was broadcast to the shape of gy.
Shape broadcast_shape(const Shape& a, const Shape& b);
Tensor sum_back(const Tensor& gy, const Shape& shape);

// 3: L = (w2 tanh(w1 x + b1) + b2 - y)² and its derivatives.
struct Gradients {
  double loss = 0, w1 = 0, b1 = 0, w2 = 0, b2 = 0;
};
Gradients by_hand(double w1, double b1, double w2, double b2, double x, double y);

// 4: a number in a graph. The nodes it was computed from have smaller numbers.
struct Node {
  double value = 0, grad = 0;
  int64_t number = 0;
  std::vector<std::shared_ptr<Node>> from;
  std::vector<double> slopes;  // d(value)/d(from[i]->value)
  int runs = 0;                // how often propagate() was called

  // Passes the gradient on. Right only when `grad` is complete, and only once.
  void propagate() {
    ++runs;
    for (size_t i = 0; i < from.size(); ++i) from[i]->grad += slopes[i] * grad;
  }
};
using NodePtr = std::shared_ptr<Node>;
void backward(const NodePtr& root);

// 5: y = weight (x - mean)/sqrt(variance + 1e-5) + bias over the last dimension of x [N, features],
// with the biased variance.
std::unique_ptr<nn::Module> make_layer_norm(int64_t features, DType dtype);

// 6: the patches of an image [C,H,W] as columns [C·k·k, P·Q], and the adjoint of that.
Tensor unfold(const Tensor& image, int64_t kernel, int64_t stride, int64_t padding);
Tensor fold(const Tensor& columns, const Shape& image, int64_t kernel, int64_t stride,
            int64_t padding);

// 7: batch norm of x [N,C] in training, with its gradients.
Variable batch_norm(const Variable& x, const Variable& gamma, const Variable& beta, double eps);

// 8: one update of p from its gradient g. t counts the steps from 1; b, m and v begin with zeros.
struct SgdRule {
  double lr = 0.1, momentum = 0.9, weight_decay = 0;
  bool nesterov = false;
};
void sgd_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& b,
              int64_t t, const SgdRule& rule);
struct AdamRule {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};
void adam_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& m,
               std::vector<double>& v, int64_t t, const AdamRule& rule);

// 9: a residual block, and one epoch of training: returns the mean loss of its steps. `step` counts
// steps over all epochs and belongs to the schedule.
std::unique_ptr<nn::Module> make_block(int64_t in, int64_t out, int64_t stride, nn::Init& init);
double train_epoch(nn::Module& net, data::Loader& loader, int64_t epoch,
                   optim::Optimizer& optimizer, const optim::Schedule& schedule, int64_t* step);

// 10: how far the batch is from what the batch norms saw in training. inputs[l] [N,C,H,W] is what
// enters norms[l].
Variable statistics_loss(const std::vector<Variable>& inputs,
                         const std::vector<nn::BatchNorm2d*>& norms);

// 11: rows u_i and v_i [N,d] of length 1 belong together; the mean over i. And how different rows
// [N,d] of any length are: 1 - mean cosine over all pairs.
Variable contrast(const Variable& u, const Variable& v, double tau);
double diversity(const Tensor& rows);

// 12: T² KL(softmax(z̄/T) ‖ softmax(s/T)), batch mean; z̄ = Σ w_m z_m with Σ w_m = 1.
Variable distillation_loss(const std::vector<Tensor>& teacher_logits,
                           const std::vector<double>& weights, const Variable& student_logits,
                           double temperature);

}  // namespace mtcki::course
