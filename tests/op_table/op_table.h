// The op table: one row per differentiable function of autograd/functions.h. A row is data; the
// drivers in op_table_test.cpp run every row through gradcheck, against its reference, in f32 and
// bf16, in every layout, with every kernel family, and read its error texts and FLOPs; those in
// op_table_cuda_test.cpp run it on a GPU, and bench/ops_bench.cpp measures its time.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "autograd/functions.h"
#include "tensor/tensor.h"

namespace mtcki::op_table {

using Function = std::function<Variable(const std::vector<Variable>&)>;
// The formula in plain loops over f64 plain tensors, independent of the ops.
using Reference = std::function<Tensor(const std::vector<Tensor>&)>;

struct Case {
  std::string name;
  std::vector<Tensor> inputs;  // f64, plain; undefined where the function takes none
  Function run;
  Reference reference;
  double flops = 0;  // of the forward's profiler events named Row::event
};
// What ops_bench measures.
struct Timed {
  std::vector<Tensor> inputs;  // f64, plain
  Function run;
};
struct ErrorCase {
  std::function<void()> run;
  std::vector<std::string> texts;  // all of them in the message, the first at its beginning
};
struct Row {
  std::string function;  // as in functions.h; "_scalar" marks an overload with a number
  std::vector<Case> cases;
  std::vector<ErrorCase> errors;
  std::string event;        // profiler scope of the forward; empty: the function's name
  double tolerance = 3e-6;  // f32 against f64, of the largest value
  double bf16_tolerance = 0.03;
  bool products = false;     // runs convolutions or matrix products: several kernel families
  std::set<size_t> weights;  // inputs that are parameters: always plain, f32 when timed
  std::function<Timed(int64_t n)> timed;  // for a batch of n images in a network for CIFAR
};

std::vector<Row> elementwise_rows();
std::vector<Row> shape_rows();  // reductions too
std::vector<Row> product_rows();
std::vector<Row> norm_rows();
std::vector<Row> image_rows();  // pooling, upsampling, augmentation
std::vector<Row> loss_rows();
std::vector<Row> all_rows();

constexpr int64_t kC = kChannelBlock;

// Sample inputs, f64 with values that f32 holds exactly.
Tensor noise(const Shape& shape, uint64_t seed = 1);           // [-1, 1)
Tensor away_from_zero(const Shape& shape, uint64_t seed = 1);  // 0.1 < |x| < 1.1: no kink near
Tensor positive(const Shape& shape, uint64_t seed = 1);        // [0.5, 2)
Tensor distinct(const Shape& shape, uint64_t seed = 1);        // no two values close, shuffled

// Shapes in that network, for Row::timed.
inline Shape images(int64_t n) { return {n, 3, 32, 32}; }
inline Shape activations(int64_t n) { return {n, 64, 16, 16}; }
inline Shape features(int64_t n) { return {n, 512}; }
inline Shape logits(int64_t n) { return {n, 10}; }

// A constant that a function takes beside its inputs, on the device of `like`. One copy of each value
// is kept there, so that a graph capture after a first run copies nothing; clone() what is written.
Tensor constant(const Tensor& host, const Variable& like);

// For references: a tensor from a formula, and an element read with broadcasting (leading
// dimensions that x lacks are skipped, dimensions of size 1 repeat).
using Index = std::vector<int64_t>;
Tensor fill(const Shape& shape, const std::function<double(const Index&)>& formula);
double at(const Tensor& x, const Index& i);
void for_each_index(const Shape& shape, const std::function<void(const Index&)>& f);
inline double count(const Shape& shape) { return static_cast<double>(shape.numel()); }

}  // namespace mtcki::op_table
