// A network that is given as a list of operations instead of a name: what an ONNX file becomes.
// Layers with weights are modules, so that hooks, statistics and fusion work as in any network.
//
// A value is the image (0) or the result of a node (i + 1 of node i). Nodes stand in the order of
// computing. Operations, with their ints and reals:
//
//   conv        in, out, kernel height and width, stride, padding, dilation (height, width), groups,
//               bias (0 or 1)
//   batch_norm  channels; eps        linear  in, out, bias; of the last dimension
//   relu  sigmoid  tanh  erf  exp  log  sqrt  abs             softmax  over the last dimension
//   leaky_relu  slope                clamp  low, high (reals)
//   add  sub  mul  div  greater      of two values; greater is 1 or 0, and has no gradient
//   scale       a, b (reals): a x + b
//   constant    sizes; a buffer "value"
//   cat         dimension            narrow  dimension, begin, end     pad  dimension, before, after
//   reshape     sizes, -1 is that with N in it              permute  the order
//   mean, sum   keep (0 or 1), dimensions                   matmul  of two [B,M,K] and [B,K,N]
//   upsample    height, width; nearest, as upsample_nearest2d
//   resample    dimension (2, 3), from, to; a buffer "value" [to, from]: the weights of a pixel
//   max_pool, avg_pool  kernel, stride, padding (height, width), ceil_mode; avg: count_include_pad
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/models/model.h"

namespace mtcki::nn {

struct GraphNode {
  std::string op, name;  // the name of its module, or ""
  std::vector<int64_t> inputs, ints;
  std::vector<double> reals;
};
struct GraphSpec {
  ModelSpec model;               // name "onnx"
  std::vector<GraphNode> nodes;  // the last one gives the logits
  int64_t feature = 0;           // value that the nodes behind it use, and no other before it;
                                 // the logits where there is no last linear layer
  std::vector<int64_t> stages;   // nodes with a module whose inputs are stage features
};

// Sizes of the parameters and buffers of a node, by name; empty for one without.
NamedList<Shape> graph_parameters(const GraphNode& node);

// DataError: a node that is not possible, an input that is not there.
void check_graph(const GraphSpec& graph);

class GraphClassifier : public Classifier {
 public:
  // Weights are zeros. DataError as check_graph().
  explicit GraphClassifier(GraphSpec spec);
  std::string kind() const override { return "Graph"; }
  const GraphSpec& spec() const { return spec_; }
  int64_t feature_dim() const override { return feature_dim_; }
  std::vector<Module*> stages() override;

 protected:
  Variable trunk(const Variable& x) override;
  Variable head(const Variable& feature) override;

 private:
  struct Step {
    Module* module = nullptr;
    const Tensor* constant = nullptr;
    std::vector<Link> links;     // of a convolution or batch norm and what follows it
    int64_t fused_until = -1;    // the last node of these
    std::vector<int64_t> frees;  // values that nobody needs afterwards
  };
  void build(const GraphNode& node, Step* step);
  void plan();
  Variable run(std::vector<Variable>* values, int64_t begin, int64_t end);
  Variable apply(const GraphNode& node, const Step& step, std::vector<Variable> in);

  GraphSpec spec_;
  std::vector<Step> steps_;
  int64_t feature_dim_ = 0;
};

}  // namespace mtcki::nn
