// From the nodes of an ONNX file to those of a network graph (nn/models/graph.h): constants are
// folded, shapes are known, weights are taken out. Internal to the import (onnx_import.h).
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/formats/onnx_file.h"
#include "nn/models/graph.h"

namespace mtcki::onnx {

// Stands for the number of images in every shape, so that what a file computes from shapes shows
// where that stays free. A prime, larger than any number of channels. One dimension of every value
// of the network is a multiple of it: mostly the first, but attention merges it with its heads or
// windows, and moves it. Constants have none; where a file makes one for all images, it is for one.
inline constexpr int64_t kBatch = 1000003;

using Sizes = std::vector<int64_t>;
using Runs = std::vector<std::pair<int64_t, int64_t>>;  // [begin, end)

// What a name of the file stands for: a value of the network, a constant, or a list of values.
struct Value {
  int64_t id = -1;  // of the network graph, when >= 0
  Tensor constant;  // real (f64 where it was computed, so that weights are rounded once) or i64
  Sizes parts;      // ids of a sequence
  bool is_constant() const { return constant.defined(); }
};

// A strict load of what a network has of these; error as load_state_dict().
void load_weights(nn::GraphClassifier& net, const std::map<std::string, Tensor>& weights);

class Builder {
 public:
  Builder(const std::string& file, const data::OnnxModel& model, const nn::ModelSpec& spec);
  // DataError: the logits need an operator, or a form of one, that is not taken, with the name of
  // its node.
  void run();

  std::vector<nn::GraphNode> nodes;
  std::vector<Sizes> shapes;              // of every value; [0]: the images
  std::map<std::string, Tensor> weights;  // "module.parameter"
  std::vector<std::string> notes;
  int64_t result = 0;  // the value of the logits

 private:
  void take_node();
  void evaluate(size_t first);
  void leave_out_last_function();

  // Of the node under way -------------------------------------------------------------------------
  [[noreturn]] void fail(const std::string& what) const;
  bool has(size_t i) const;
  const Value& input(size_t i) const;
  const Tensor& constant(size_t i) const;
  double number(size_t i) const;  // a constant of one element
  int64_t activation(size_t i);   // its id; a constant becomes a node of its own
  int64_t attribute(const char* name, int64_t otherwise) const;
  double attribute(const char* name, double otherwise) const;
  std::string attribute(const char* name, const char* otherwise) const;
  const data::OnnxAttribute* find_attribute(const std::string& name) const;
  // An attribute that nothing here has looked at could change what the operator computes.
  void check_attributes() const;
  // An attribute, or the input i of later versions.
  Sizes integers(const char* name, size_t i, const Sizes& otherwise) const;
  int64_t axis(int64_t a, size_t rank) const;
  static int64_t batch_dim(const Sizes& sizes);  // the dimension with the images in it, or -1
  void give(int64_t id, size_t output = 0);
  void give(const Tensor& t);

  const Sizes& shape(int64_t id) const { return shapes[static_cast<size_t>(id)]; }
  int64_t add(const std::string& op, Sizes inputs, Sizes ints, std::vector<double> reals,
              const Sizes& shape);
  // The same with the sizes worked out. permuted() and reshaped() of what is so already are nothing.
  int64_t unary(const char* op, int64_t x, std::vector<double> reals = {});
  int64_t scaled(int64_t x, double a, double b = 0);  // a x + b
  int64_t binary(const std::string& op, int64_t a, int64_t b);
  int64_t reduced(const char* op, int64_t x, const Sizes& axes, bool keep = true);
  int64_t permuted(int64_t x, const Sizes& order);
  int64_t reshaped(int64_t x, const Sizes& sizes);
  int64_t literal(const Tensor& value, const std::string& name = "constant");
  Sizes broadcast(Sizes a, Sizes b) const;        // as NumPy does
  int64_t spread(int64_t x, const Sizes& sizes);  // x, repeated to what it is broadcast to
  // With a module, which is named as its weight is in the file.
  int64_t add_layer(const std::string& op, Sizes inputs, Sizes ints, std::vector<double> reals,
                    const Sizes& shape, const std::string& weight,
                    const std::vector<std::pair<const char*, Tensor>>& parameters);

  // onnx_constants.cpp: true when the node was one of constants.
  bool fold();
  bool fold_shape();
  bool fold_list();
  bool fold_statistics();
  bool fold_arithmetic();
  // onnx_quantised.cpp: to 8 bits and back. Values are cut off at the ends and not rounded.
  bool quantised(const std::string& op);
  Tensor computed(size_t inputs, bool logical, const std::function<double(const double*)>& f) const;
  Tensor expanded(const Tensor& t, const Sizes& sizes) const;
  Sizes leading_places(const Tensor& index, const Sizes& sizes) const;
  static Tensor picked(const Tensor& t, int64_t d, const Sizes& at);  // of a dimension
  Tensor summing(int64_t n) const;  // CumSum of the last dimension, as a matrix behind it

  // onnx_functions.cpp, and below onnx_operators.cpp and onnx_shapes.cpp: true when the operator is
  // one of theirs.
  bool function(const std::string& op);
  bool comparison(const std::string& op);
  bool arithmetic(const std::string& op);
  bool reduction(const std::string& op);
  bool normalisation(const std::string& op);
  int64_t negative_part(int64_t x);
  int64_t elu(int64_t x, double alpha, double scale);
  int64_t softplus(int64_t x);
  int64_t gelu(int64_t x);
  int64_t power(int64_t x, double p);
  int64_t softmax(const char* op, int64_t x);
  int64_t largest(int64_t x, const Sizes& axes, bool keep);
  int64_t normalised(int64_t x, const Sizes& axes, double eps);
  int64_t affine(int64_t x, const Sizes& sizes);
  std::pair<double, double> limits() const;  // of Clip
  bool layer(const std::string& op);
  bool pool(const std::string& op);
  bool rearrangement(const std::string& op);
  bool reordering(const std::string& op);
  void convolution();
  void batch_norm();
  void linear(int64_t x, Tensor weight, Tensor bias, const std::string& name);
  void gemm();
  void with_constant(const std::string& op, int64_t x, const Tensor& c, bool constant_first);
  int64_t padded(int64_t x, const Sizes& pads);
  void pad();
  int64_t joined(int64_t x, int64_t d, const Runs& runs);
  int64_t continued(int64_t x, int64_t d, int64_t before, int64_t after, bool mirrored);
  void slice();
  void gather();
  void concat();
  void expand();
  void split();
  void reshape(int64_t x, Sizes sizes);
  void blocks(bool to_space);
  int64_t product(int64_t a, int64_t b);
  void einsum();
  // Of convolutions and pools: input i as an image, and what they give in the input's dimensions;
  // of lines, [N,C,W], the height is 1, also in the lists of their attributes.
  int64_t image(size_t i);
  void give_image(int64_t x);
  Sizes sides(const char* name, const Sizes& otherwise);
  int64_t composed_pool(bool max, int64_t x, const Sizes& kernel, const Sizes& stride,
                        const Sizes& dilation, const Sizes& pads, const Sizes& out);
  int64_t every_nth(int64_t x, const Sizes& steps);
  void resize();  // onnx_resize.cpp
  std::pair<Sizes, std::vector<float>> resized(const Sizes& in, size_t scales_at);
  // pads [before, after per axis] and what the rounding of auto_pad says; [4] in ONNX's order.
  Sizes pads_of(const Sizes& in, const Sizes& kernel, const Sizes& stride, const Sizes& dilation);

  const std::string& file_;
  const data::OnnxModel& model_;
  const data::OnnxNode* node_ = nullptr;
  mutable std::set<std::string> looked_at_;  // attributes of the node
  int64_t declared_batch_ = -1, classes_ = 0;
  std::vector<int64_t> inner_{1};  // of every value, how many its dimension with N has before N
  std::map<std::string, Value> values_;
  std::map<std::string, int64_t> types_;  // of 8-bit constants, as in the file
  std::map<std::string, std::pair<double, double>> quantised_;  // scale and zero point, until back
  std::map<std::string, std::string> broken_;                   // what there is not, and why
  std::map<std::string, int64_t> readers_;
  std::map<std::string, int> names_;  // of modules
};

}  // namespace mtcki::onnx
