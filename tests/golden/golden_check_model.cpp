// Whole networks in golden files: state dict in; logits, loss, first-step gradients and moved
// running statistics out.
#include "autograd/functions.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/onnx_import.h"
#include "nn/models/model.h"
#include "tests/golden/golden_check.h"

namespace mtcki::golden {

namespace {

// The part of `key` behind one of the prefixes, or "".
std::string behind(const std::string& key, std::initializer_list<const char*> prefixes) {
  for (const std::string prefix : prefixes)
    if (key.rfind(prefix, 0) == 0) return key.substr(prefix.size());
  return "";
}

std::unique_ptr<nn::Module> make_model(const Case& c, DType dtype) {
  nn::Init init(0);
  init.dtype = dtype;
  const Options& o = c.options;
  const Tensor& x = require(c, "in0");
  const std::string name = o.text("model", "");
  if (const std::string generator = behind(name, {"generator_"}); !generator.empty()) {
    nn::GeneratorSpec spec;
    spec.name = generator;
    spec.nz = o.integer("nz", x.size(1));
    spec.ngf = o.integer("ngf", 64);
    spec.channels = o.integer("channels", 3);
    spec.image_size = o.integer("image_size", 32);
    return nn::make_generator(spec, init);
  }
  if (x.rank() != 4)
    throw DataError(str(c.name, ": in0 must be images [N,C,H,W], got ", x.shape().to_string()));
  nn::ModelSpec spec;
  spec.name = name;
  spec.in_channels = o.integer("in_channels", x.size(1));
  spec.image_size = o.integer("image_size", x.size(2));
  spec.num_classes = o.integer("num_classes", 10);
  std::unique_ptr<nn::Classifier> net;
  if (const std::string file = o.text("onnx", ""); !file.empty())
    net = import_onnx(c.folder + file, spec);
  if (const std::string file = o.text("weights", ""); !file.empty())
    net = load_model(c.folder + file, spec, o.text("name_map", ""));
  if (!net) return nn::make_classifier(spec, init);
  for (const auto& [key, parameter] : net->named_parameters())
    parameter->set_data(parameter->data().to(dtype));
  for (const auto& [key, buffer] : net->named_buffers())
    if (is_floating(buffer->dtype())) *buffer = buffer->to(dtype);
  return net;
}

}  // namespace

Outcome run_model(const Case& c) {
  const Tensor& x = require(c, "in0");
  const auto model = make_model(c, x.dtype());
  nn::StateDict state;
  for (const auto& [key, tensor] : c.tensors)
    if (const std::string name = behind(key, {"state/", "state_dict/"}); !name.empty())
      state.emplace_back(name, tensor);
  const bool has_weights = c.options.has("onnx") || c.options.has("weights");
  if (state.empty() && !has_weights)
    throw DataError(str(c.name, ": no tensors ", c.name, "/state/<parameter>"));
  if (!has_weights) model->load_state_dict(state);
  model->train(c.options.boolean("training", true));

  const Variable input(x, c.find("grad_in0") != nullptr);
  const Variable y = (*model)(input);
  Variable root = y;
  Outcome outcome;
  if (const std::string loss = c.options.text("loss", "cross_entropy"); loss != "cross_entropy")
    throw UnsupportedError(str(c.name, ": loss '", loss, "' (known: cross_entropy)"));
  if (const Tensor* labels = c.find("in1")) {
    root = cross_entropy(y, labels->to(DType::i64), c.options.number("label_smoothing", 0.0));
    if (const Tensor* loss = c.find("loss")) outcome.checks.push_back({"loss", root.data(), *loss});
  }
  if (const Tensor* seed = c.find("grad_out")) {
    root.backward(seed->reshape(root.shape()));
  } else if (root.numel() == 1) {
    root.backward();
  }

  std::map<std::string, Variable*> parameters;
  for (const auto& [name, p] : model->named_parameters()) parameters[name] = p;
  std::map<std::string, Tensor*> buffers;
  for (const auto& [name, b] : model->named_buffers()) buffers[name] = b;
  for (const auto& [key, expected] : c.tensors) {
    if (key == "out0") outcome.checks.push_back({key, y.data(), expected});
    if (key == "grad_in0") outcome.checks.push_back({key, input.grad(), expected});
    if (const std::string name = behind(key, {"grad/"}); !name.empty()) {
      if (!parameters.count(name)) throw DataError(str(c.name, ": no parameter '", name, "'"));
      outcome.checks.push_back({key, parameters[name]->grad(), expected});
    }
    if (const std::string name = behind(key, {"buffer/"}); !name.empty()) {
      if (!buffers.count(name)) throw DataError(str(c.name, ": no buffer '", name, "'"));
      outcome.checks.push_back({key, *buffers[name], expected});
    }
  }
  return outcome;
}

}  // namespace mtcki::golden
