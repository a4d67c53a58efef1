#include "mtcki/networks/onnx_import.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/networks/onnx_graph_builder.h"
#include "nn/state_dict.h"
#include "tensor/error.h"

namespace mtcki {

using nlohmann::json;
using onnx::Builder;
using onnx::Sizes;

const char kKeepsBatchNorms[] =
    "a network that was trained without any (ConvNeXt, NFNet) has none; where the exporter folded "
    "them away, export it again with torch.onnx.export(net.eval(), images, \"net.onnx\", "
    "dynamo=False, "
    "do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE), or with optimize=False "
    "by the exporter of dynamo=True, which keep them";

namespace {

// Nodes that the logits need, the last linear layer and what follows it at the end.
nn::GraphSpec cut_at_feature(const Builder& b, const nn::ModelSpec& model) {
  const auto node = [&](int64_t value) -> const nn::GraphNode& {
    return b.nodes[static_cast<size_t>(value - 1)];
  };
  Sizes head;  // values, from the logits back
  int64_t v = b.result;
  while (v > 0 && (node(v).op == "scale" || node(v).op == "reshape")) {
    head.push_back(v);
    v = node(v).inputs[0];
  }
  if (v > 0 && node(v).op == "linear" && b.shapes[static_cast<size_t>(v)].size() == 2 &&
      b.shapes[static_cast<size_t>(v)][0] == onnx::kBatch) {
    head.push_back(v);
    v = node(v).inputs[0];
  } else {
    head.clear();
    v = b.result;
  }
  std::vector<bool> needed(b.nodes.size() + 1, false);
  needed[static_cast<size_t>(v)] = true;
  for (int64_t i = v; i > 0; --i)
    if (needed[static_cast<size_t>(i)])
      for (const int64_t in : node(i).inputs) needed[static_cast<size_t>(in)] = true;
  Sizes order;
  for (int64_t i = 1; i <= v; ++i)
    if (needed[static_cast<size_t>(i)]) order.push_back(i);
  nn::GraphSpec out;
  out.model = model;
  out.feature = static_cast<int64_t>(order.size());
  order.insert(order.end(), head.rbegin(), head.rend());
  std::map<int64_t, int64_t> place{{0, 0}};
  for (const int64_t value : order) {
    nn::GraphNode n = node(value);
    for (int64_t& in : n.inputs) in = place.at(in);
    out.nodes.push_back(n);
    place[value] = static_cast<int64_t>(out.nodes.size());
  }
  // Where the image gets smaller: the first convolution that reads each size.
  int64_t smallest = b.shapes[0][2] * b.shapes[0][3], last = -1;
  for (size_t i = 0; i < static_cast<size_t>(out.feature); ++i) {
    if (out.nodes[i].op != "conv") continue;
    last = static_cast<int64_t>(i);
    const Sizes& in = b.shapes[static_cast<size_t>(node(order[i]).inputs[0])];
    // One pixel or line: a gate of channels, with larger images behind it.
    if (in[2] == 1 || in[3] == 1 || in[2] * in[3] >= smallest) continue;
    smallest = in[2] * in[3];
    out.stages.push_back(last);
  }
  if (out.stages.empty() && last >= 0) out.stages.push_back(last);
  return out;
}

void require_logits(const std::string& path, const Builder& b, const nn::ModelSpec& spec) {
  const Sizes& logits = b.shapes[static_cast<size_t>(b.result)];
  if (logits.size() == 2 && logits[0] != onnx::kBatch && logits[0] % onnx::kBatch == 0)
    throw DataError(
        str(path, ": gives ", logits[0] / onnx::kBatch, " rows of numbers for one image of ",
            spec.image_size, "x", spec.image_size,
            " pixels; it was written for images of another size (data.pixels, data.size)"));
  if (logits.size() != 2 || logits[0] != onnx::kBatch)
    throw DataError(str(path, ": its output has ", logits.size(),
                        " dimensions; a classifier's is [N, classes]"));
  if (logits[1] != spec.num_classes)
    throw DataError(str(path, ": its output has ", logits[1], " classes, but ", spec.num_classes,
                        " are needed; is it from another data set?"));
}

}  // namespace

std::unique_ptr<nn::GraphClassifier> import_onnx(const std::string& path, const nn::ModelSpec& spec,
                                                 std::vector<std::string>* notes) {
  return import_onnx(path, data::read_onnx(path), spec, notes);
}

std::unique_ptr<nn::GraphClassifier> import_onnx(const std::string& path,
                                                 const data::OnnxModel& model,
                                                 const nn::ModelSpec& spec,
                                                 std::vector<std::string>* notes) {
  Builder builder(path, model, spec);
  try {
    builder.run();
    require_logits(path, builder, spec);
    nn::ModelSpec own = spec;
    own.name = kGraphModel;
    auto net = std::make_unique<nn::GraphClassifier>(cut_at_feature(builder, own));
    onnx::load_weights(*net, builder.weights);
    if (notes) {
      notes->insert(notes->end(), builder.notes.begin(), builder.notes.end());
      notes->push_back(str("ONNX opset ", model.opset, ", ", net->spec().nodes.size(),
                           " operations, ", net->batch_norms().size(), " batch norms, features of ",
                           net->feature_dim()));
    }
    return net;
  } catch (const DataError&) {
    throw;
  } catch (const Error& e) {  // of an op on constants, or of the network: the file asked for it
    throw DataError(path + ": " + e.what());
  }
}

InputScaling input_scaling(nn::Classifier& net) {
  const auto* graph = dynamic_cast<const nn::GraphClassifier*>(&net);
  if (!graph) return {};
  const nn::GraphSpec& spec = graph->spec();
  const auto channels = static_cast<size_t>(spec.model.in_channels);
  InputScaling own{std::vector<double>(channels, 1.0), std::vector<double>(channels, 0.0)};
  std::map<std::string, Tensor> weights;
  for (const auto& [name, t] : net.state_dict()) weights[name] = t;
  std::vector<int64_t> readers(spec.nodes.size() + 1, 0);
  for (const nn::GraphNode& n : spec.nodes)
    for (const int64_t in : n.inputs) ++readers[static_cast<size_t>(in)];
  bool any = false;
  int64_t value = 0;
  for (size_t i = 0; i < spec.nodes.size(); ++i) {
    const nn::GraphNode& n = spec.nodes[i];
    const auto at = std::find(n.inputs.begin(), n.inputs.end(), value);
    if (at == n.inputs.end()) continue;
    if (readers[static_cast<size_t>(value)] != 1) break;
    value = static_cast<int64_t>(i) + 1;
    if (n.op == "permute") continue;
    if (n.op == "scale") {
      for (size_t k = 0; k < channels; ++k) {
        own.scale[k] *= n.reals[0];
        own.shift[k] = own.shift[k] * n.reals[0] + n.reals[1];
      }
      any = true;
      continue;
    }
    const bool two = n.op == "add" || n.op == "sub" || n.op == "mul" || n.op == "div";
    if (!two || n.inputs.size() != 2) break;
    const bool first = at != n.inputs.begin();  // the constant comes before the images
    const int64_t other = n.inputs[first ? 0 : 1];
    if (other < 1 || spec.nodes[static_cast<size_t>(other - 1)].op != "constant") break;
    const auto values =
        weights.at(spec.nodes[static_cast<size_t>(other - 1)].name + ".value").to_vector<float>();
    if (values.size() != channels || (first && n.op == "div")) break;
    for (size_t k = 0; k < channels; ++k) {
      const double v = values[k];
      if (n.op == "mul" || n.op == "div") {
        own.scale[k] *= n.op == "mul" ? v : 1 / v;
        own.shift[k] *= n.op == "mul" ? v : 1 / v;
      } else {
        const double sign = n.op == "sub" && first ? -1 : 1;
        own.scale[k] *= sign;
        own.shift[k] = sign * own.shift[k] + (n.op == "sub" && !first ? -v : v);
      }
    }
    any = true;
  }
  return any ? own : InputScaling{};
}

data::Normalization normalization_before(const InputScaling& own) {
  const size_t channels = own.scale.size();
  // How far [0, white] is from [-1, 1] then, in the place and the logarithm of its size.
  const auto badness = [&](double white) {
    double out = 0;
    for (size_t k = 0; k < channels; ++k) {
      const double half = std::abs(own.scale[k]) * white / 2 + 1e-12,
                   middle = own.shift[k] + own.scale[k] * white / 2;
      out += std::abs(middle) / half + std::abs(std::log(half)) / 3;
    }
    return out;
  };
  const double std = badness(255) < badness(1) ? 1.0 / 255 : 1.0;
  return {std::vector<double>(channels, 0.0), std::vector<double>(channels, std)};
}

std::string graph_json(const nn::GraphSpec& graph) {
  json nodes = json::array();
  for (const nn::GraphNode& n : graph.nodes) {
    json j = {{"op", n.op}, {"in", n.inputs}};
    if (!n.name.empty()) j["name"] = n.name;
    if (!n.ints.empty()) j["ints"] = n.ints;
    if (!n.reals.empty()) {
      // JSON has no infinity; no f32 lies beyond its largest value.
      constexpr double kLargest = std::numeric_limits<float>::max();
      std::vector<double> reals = n.reals;
      for (double& r : reals) r = std::clamp(r, -kLargest, kLargest);
      j["reals"] = reals;
    }
    nodes.push_back(j);
  }
  return json{{"channels", graph.model.in_channels},
              {"pixels", graph.model.image_size},
              {"classes", graph.model.num_classes},
              {"feature", graph.feature},
              {"stages", graph.stages},
              {"nodes", nodes}}
      .dump();
}

std::unique_ptr<nn::GraphClassifier> read_graph(const std::string& path, const std::string& text,
                                                const data::NamedTensors& tensors) {
  const auto bad = [&](const std::string& what) -> void {
    throw DataError(str(path, ": its network (mtcki.graph) is damaged: ", what));
  };
  nn::GraphSpec graph;
  try {
    const json j = data::parse_json(text);
    graph.model = {kGraphModel, j.at("channels"), j.at("pixels"), j.at("classes")};
    graph.feature = j.at("feature");
    graph.stages = j.at("stages").get<Sizes>();
    for (const json& n : j.at("nodes"))
      graph.nodes.push_back({n.at("op"), n.value("name", ""), n.at("in").get<Sizes>(),
                             n.value("ints", Sizes{}), n.value("reals", std::vector<double>{})});
  } catch (const json::exception& e) {
    bad(e.what());
  }
  nn::check_graph(graph);
  std::map<std::string, Tensor> weights;
  for (const auto& [name, t] : tensors) weights[name] = t;
  std::set<std::string> names;
  for (const nn::GraphNode& n : graph.nodes)
    for (const auto& [parameter, shape] : nn::graph_parameters(n)) {
      const auto it = weights.find(n.name + "." + parameter);
      if (it == weights.end() || it->second.shape() != shape)
        bad("no \"" + n.name + "." + parameter + "\" " + shape.to_string());
      if (!names.insert(it->first).second) bad("two layers are named \"" + n.name + "\"");
    }
  auto net = std::make_unique<nn::GraphClassifier>(std::move(graph));
  net->load_state_dict(tensors);
  return net;
}

}  // namespace mtcki
