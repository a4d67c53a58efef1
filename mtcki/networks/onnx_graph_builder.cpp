#include "mtcki/networks/onnx_graph_builder.h"

#include <algorithm>

#include "nn/state_dict.h"
#include "tensor/error.h"

namespace mtcki::onnx {

void load_weights(nn::GraphClassifier& net, const std::map<std::string, Tensor>& weights) {
  nn::StateDict state;
  for (const auto& [name, t] : net.state_dict())
    if (const auto it = weights.find(name); it != weights.end())
      state.emplace_back(name, it->second);
  net.load_state_dict(state);  // strict: names what is missing
}

namespace {

constexpr int64_t kMostNumbers = int64_t{1} << 28;  // of a value, for one image

}  // namespace

Builder::Builder(const std::string& file, const data::OnnxModel& model, const nn::ModelSpec& spec)
    : file_(file), model_(model), types_(model.types) {
  const auto bad = [&](const std::string& what) { throw DataError(str(file, ": ", what)); };
  if (model.inputs.size() != 1)
    bad(str("has ", model.inputs.size(), " inputs, but a classifier of images has one"));
  if (model.outputs.empty()) bad("has no output");
  const data::OnnxValue& in = model.inputs[0];
  if (!in.is_real)
    bad(str("its input \"", in.name,
            "\" is no floating-point number; export the network without its "
            "conversion of bytes, and say mean and std for images in [0, 1]"));
  if (in.sizes.size() != 4)
    bad(str("its input \"", in.name, "\" has ", in.sizes.size(),
            " dimensions; images are [N,C,H,W]"));
  const bool channels_last =
      data::has_channels_last(model) && in.sizes[3] == spec.in_channels;  // of TensorFlow
  if (!channels_last && in.sizes[1] > 0 && in.sizes[1] != spec.in_channels)
    bad(str("takes images of ", in.sizes[1], " channels, but ", spec.in_channels, " are needed"));
  declared_batch_ = in.sizes[0];
  classes_ = spec.num_classes;
  shapes.push_back({kBatch, spec.in_channels, spec.image_size, spec.image_size});
  if (channels_last) {
    nodes.push_back({"permute", "", {0}, {0, 2, 3, 1}, {}});
    shapes.push_back({kBatch, spec.image_size, spec.image_size, spec.in_channels});
    inner_.push_back(1);
    notes.push_back("its images are [N,H,W,C]: those of here are turned before it");
  }
  values_[in.name].id = channels_last ? 1 : 0;
  for (const auto& [name, t] : model.initializers) values_[name].constant = t;
  for (const data::OnnxNode& n : model.nodes)
    for (const std::string& name : n.inputs) ++readers_[name];
  for (const data::OnnxValue& v : model.outputs) ++readers_[v.name];
}

void Builder::run() {
  for (const data::OnnxNode& n : model_.nodes) {
    node_ = &n;
    looked_at_.clear();
    for (const std::string& made : n.outputs)
      if (!made.empty() && values_.count(made) > 0)
        fail("makes \"" + made.substr(0, 80) + "\" a second time");
    try {
      take_node();
      check_attributes();
    } catch (const Error& e) {  // of no effect where the logits do not need it
      const bool of_data = dynamic_cast<const DataError*>(&e) != nullptr;
      for (const std::string& made : n.outputs) {
        values_.erase(made);
        broken_[made] = of_data ? e.what() : str(file_, ": ", e.what());
      }
    }
  }
  const auto value_of = [this](const data::OnnxValue& output) {
    const auto it = values_.find(output.name);
    return it == values_.end() ? -1 : it->second.id;
  };
  // Some give the features beside the logits.
  const auto logits = std::find_if(model_.outputs.begin(), model_.outputs.end(),
                                   [&](const data::OnnxValue& output) {
                                     if (value_of(output) < 0) return false;
                                     Sizes sizes = shape(value_of(output));
                                     std::erase(sizes, 1);  // of [N,classes,1,1]
                                     return sizes == Sizes{kBatch, classes_};
                                   });
  if (logits == model_.outputs.end())
    for (const data::OnnxValue& o : model_.outputs)
      if (const auto it = broken_.find(o.name); it != broken_.end()) throw DataError(it->second);
  const data::OnnxValue& output = logits == model_.outputs.end() ? model_.outputs[0] : *logits;
  result = value_of(output);
  if (result < 0)
    throw DataError(str(file_, ": its output \"", output.name, "\" does not come from the images"));
  if (logits != model_.outputs.end()) result = reshaped(result, {kBatch, classes_});
  leave_out_last_function();
  if (model_.outputs.size() > 1)
    notes.push_back(str("of its ", model_.outputs.size(), " outputs \"", output.name,
                        "\" is taken for the logits"));
}

void Builder::take_node() {
  const data::OnnxNode& n = *node_;
  const size_t first = nodes.size();
  if (n.outputs.empty()) fail("has no output");
  const auto is_last = [&](const std::string& made) {
    return readers_[made] == 1 &&
           std::any_of(model_.outputs.begin(), model_.outputs.end(),
                       [&](const data::OnnxValue& o) { return o.name == made; });
  };
  if ((n.op == "ArgMax" || n.op == "Hardmax") && is_last(n.outputs[0])) {
    notes.push_back(str("its last operator is ", n.op, ": what goes into that are the logits"));
    for (const auto& [name, a] : n.attributes) looked_at_.insert(name);
    return give(activation(0));
  }
  if (quantised(n.op) || fold()) return;
  if (!layer(n.op) && !function(n.op) && !comparison(n.op) && !arithmetic(n.op) && !pool(n.op) &&
      !reduction(n.op) && !normalisation(n.op) && !rearrangement(n.op) && !reordering(n.op))
    fail(
        "this operator is not among those that are imported, which docs/teachers.md lists; export "
        "the network without it, or by PyTorch's other exporter (dynamo=True or False)");
  evaluate(first);
}

// The nodes from `first` on, computed once where they are of constants.
void Builder::evaluate(size_t first) {
  for (size_t i = 0; i < node_->inputs.size(); ++i)
    if (has(i) && !input(i).is_constant()) return;
  if (!has(0) || input(0).constant.dtype() == DType::i64) return;
  const auto from = static_cast<int64_t>(first);
  nn::GraphSpec graph;
  for (size_t i = first; i < nodes.size(); ++i) {
    graph.nodes.push_back(nodes[i]);
    for (int64_t& in : graph.nodes.back().inputs)
      if ((in -= from) < 1) return;
  }
  std::vector<std::pair<std::string, Tensor>> made;
  const NoGradScope no_grad;
  for (const std::string& name : node_->outputs) {
    const auto it = values_.find(name);
    if (it == values_.end() || it->second.id <= from) return;
    nn::GraphSpec part = graph;
    part.nodes.resize(static_cast<size_t>(it->second.id - from));
    part.feature = std::ssize(part.nodes);
    nn::GraphClassifier net(part);
    load_weights(net, weights);
    net.eval();
    made.emplace_back(name, net(Variable(Tensor::zeros({1}))).data().plain());
  }
  for (const auto& [name, t] : made) values_[name] = {-1, t, {}};
}

// A softmax or sigmoid at the end: what goes into it are the logits.
void Builder::leave_out_last_function() {
  int64_t *reader = &result, *logarithm = nullptr;
  while (*reader > 0) {
    nn::GraphNode& n = nodes[static_cast<size_t>(*reader) - 1];
    if (n.op == "softmax" || n.op == "log_softmax" || n.op == "sigmoid") {
      notes.push_back(str("its last operator is ",
                          n.op == "sigmoid"                    ? "Sigmoid"
                          : logarithm || n.op == "log_softmax" ? "LogSoftmax"
                                                               : "Softmax",
                          ": what goes into that are the logits"));
      *reader = n.inputs[0];
      if (logarithm) *logarithm = nodes[static_cast<size_t>(*logarithm) - 1].inputs[0];
      return;
    }
    if (n.op == "log") logarithm = reader;
    if (n.op != "reshape" && n.op != "permute" && n.op != "log") return;
    reader = n.inputs.data();
  }
}

void Builder::fail(const std::string& what) const {
  throw DataError(
      str(file_, ": ", node_->op.substr(0, 60), " \"",
          (node_->name.empty() && !node_->outputs.empty() ? node_->outputs[0] : node_->name)
              .substr(0, 80),
          "\": ", what));
}

bool Builder::has(size_t i) const { return i < node_->inputs.size() && !node_->inputs[i].empty(); }

const Value& Builder::input(size_t i) const {
  if (!has(i)) fail(str("input ", i, " is missing"));
  const auto it = values_.find(node_->inputs[i]);
  if (const auto no = broken_.find(node_->inputs[i]); no != broken_.end())
    throw DataError(no->second);
  if (quantised_.count(node_->inputs[i]) > 0 && node_->op != "DequantizeLinear")
    fail("computes with numbers of 8 bits; take the file from before its quantisation");
  if (it == values_.end())
    fail("uses \"" + node_->inputs[i].substr(0, 80) + "\", which no node before it makes");
  return it->second;
}

const Tensor& Builder::constant(size_t i) const {
  const Value& v = input(i);
  if (!v.is_constant()) fail(str("input ", i, " must be a constant, not computed from the images"));
  return v.constant;
}

double Builder::number(size_t i) const {
  if (constant(i).numel() != 1) fail(str("input ", i, " must be one number"));
  return constant(i).item();
}

int64_t Builder::activation(size_t i) {
  const Value& v = input(i);
  if (!v.parts.empty()) fail("takes a sequence of values");
  if (v.id >= 0) return v.id;
  return literal(v.constant, node_->inputs[i]);
}

int64_t Builder::literal(const Tensor& value, const std::string& name) {
  Sizes sizes(value.shape().begin(), value.shape().end());
  if (sizes.empty()) sizes = {1};
  return add_layer("constant", {}, sizes, {}, sizes, name,
                   {{"value", value.reshape(Shape(sizes))}});
}

const data::OnnxAttribute* Builder::find_attribute(const std::string& name) const {
  looked_at_.insert(name);
  const auto it = node_->attributes.find(name);
  return it == node_->attributes.end() ? nullptr : &it->second;
}

void Builder::check_attributes() const {
  // Of training, of results that nobody here takes, and of narrower numbers.
  static const std::set<std::string> kOfNoEffect = {
      "ratio",    "seed",       "momentum", "training_mode",  "storage_order",
      "saturate", "round_mode", "is_test",  "consumed_inputs"};
  for (const auto& [name, a] : node_->attributes)
    if (looked_at_.count(name) == 0 && kOfNoEffect.count(name) == 0)
      fail("its attribute \"" + name.substr(0, 80) + "\" is not taken");
}

int64_t Builder::attribute(const char* name, int64_t otherwise) const {
  const data::OnnxAttribute* a = find_attribute(name);
  return a ? a->integer : otherwise;
}

double Builder::attribute(const char* name, double otherwise) const {
  const data::OnnxAttribute* a = find_attribute(name);
  return a ? static_cast<double>(a->real) : otherwise;
}

std::string Builder::attribute(const char* name, const char* otherwise) const {
  const data::OnnxAttribute* a = find_attribute(name);
  return a ? a->text : otherwise;
}

Sizes Builder::integers(const char* name, size_t i, const Sizes& otherwise) const {
  if (const data::OnnxAttribute* a = find_attribute(name)) return a->integers;
  if (!has(i)) return otherwise;
  const Tensor& t = constant(i);
  if (t.dtype() != DType::i64) fail(str("input ", i, " must hold integers"));
  return t.to_vector<int64_t>();
}

int64_t Builder::axis(int64_t a, size_t rank) const {
  const int64_t out = a < 0 ? a + static_cast<int64_t>(rank) : a;
  if (out < 0 || out >= static_cast<int64_t>(rank))
    fail(str("axis ", a, " of ", rank, " dimensions"));
  return out;
}

int64_t Builder::batch_dim(const Sizes& sizes) {
  const auto it =
      std::find_if(sizes.begin(), sizes.end(), [](int64_t n) { return n % kBatch == 0; });
  return it == sizes.end() ? -1 : it - sizes.begin();
}

void Builder::give(int64_t id, size_t output) {
  if (output < node_->outputs.size()) values_[node_->outputs[output]] = {id, {}, {}};
}

void Builder::give(const Tensor& t) {
  if (!node_->outputs.empty()) values_[node_->outputs[0]] = {-1, t, {}};
}

int64_t Builder::add(const std::string& op, Sizes inputs, Sizes ints, std::vector<double> reals,
                     const Sizes& shape) {
  for (const int64_t size : shape)
    if (size < 1)
      fail(str("its result would be empty; images of ", shapes[0][2], "x", shapes[0][3],
               " are too small for this network"));
  if (shape.size() > static_cast<size_t>(Shape::kMaxRank)) fail("too many dimensions");
  int64_t numbers = 1;
  for (const int64_t size : shape)
    if (!data::checked_multiply(numbers, size % kBatch == 0 ? size / kBatch : size, &numbers) ||
        numbers > kMostNumbers)
      fail("a result of that size is not taken");
  if (std::count_if(shape.begin(), shape.end(), [](int64_t n) { return n % kBatch == 0; }) > 1)
    fail("computes one image from another");
  int64_t inner = 0;
  for (const int64_t in : inputs) {
    if (batch_dim(shapes[static_cast<size_t>(in)]) < 0) continue;
    const int64_t n = inner_[static_cast<size_t>(in)];
    if (inner > 0 && inner != n) fail("computes one image from another");
    inner = n;
  }
  inner_.push_back(std::max<int64_t>(1, inner));
  nodes.push_back({op, "", std::move(inputs), std::move(ints), std::move(reals)});
  shapes.push_back(shape);
  return static_cast<int64_t>(nodes.size());
}

int64_t Builder::add_layer(const std::string& op, Sizes inputs, Sizes ints,
                           std::vector<double> reals, const Sizes& shape, const std::string& weight,
                           const std::vector<std::pair<const char*, Tensor>>& parameters) {
  // "layer1.0.conv1.weight" -> "layer1_0_conv1"
  std::string name = weight.substr(0, weight.rfind('.'));
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  if (name.empty() || name.size() > 80) name = op;
  const int copies = names_[name]++;
  if (copies > 0) name += str("__", copies);
  const int64_t id = add(op, std::move(inputs), std::move(ints), std::move(reals), shape);
  nodes.back().name = name;
  for (const auto& [parameter, t] : parameters)
    if (t.defined()) weights[name + "." + parameter] = t.to(DType::f32);
  return id;
}

}  // namespace mtcki::onnx
