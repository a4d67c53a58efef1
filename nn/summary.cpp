#include "nn/summary.h"

#include <algorithm>
#include <cstdio>

#include "nn/layers.h"
#include "tensor/allocator.h"

namespace mtcki::nn {

namespace {

DType parameter_dtype(Module& module) {
  for (auto& [name, p] : module.named_parameters())
    if (is_floating(p->data().dtype())) return p->data().dtype();
  return DType::f32;
}

std::string with_separators(int64_t n) {
  std::string text = std::to_string(n);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<size_t>(at), 1, ',');
  return text;
}

std::string millions(double macs) {
  char text[32];
  std::snprintf(text, sizeof text, macs >= 1e5 ? "%.1f M" : "%.4f M", macs / 1e6);
  return text;
}

}  // namespace

ModelSummary summarize(Module& module, const Shape& input) {
  ModelSummary s;
  s.kind = module.kind();
  s.input = input;
  std::vector<HookHandle> handles;
  for (auto& entry : module.named_modules()) {
    const std::string& path = entry.first;
    Module* m = entry.second;
    if (auto* bn = dynamic_cast<BatchNorm2d*>(m)) {
      ++s.batch_norms;
      s.batch_norm_channels += bn->weight.numel();
    }
    if (m->named_modules().size() > 1) continue;  // containers own nothing
    handles.push_back(
        m->add_after_hook([&s, path, m](const Module&, const Variable& x, const Variable& y) {
          s.layers.push_back({path, m->kind(), y.shape(), m->parameter_count(),
                              m->macs(x.shape(), y.shape()), y.data().nbytes()});
        }));
  }
  for (auto& [name, p] : module.named_parameters()) {
    s.parameters += p->numel();
    s.trainable += p->requires_grad() ? p->numel() : 0;
    s.parameter_bytes += p->data().nbytes();
    ++s.state_keys;
  }
  for (auto& [name, b] : module.named_buffers()) {
    s.buffer_bytes += b->nbytes();
    ++s.state_keys;
  }
  {
    const EvalScope eval(module);
    const NoGradScope no_grad;
    module(Tensor::zeros(input, parameter_dtype(module)));
  }
  for (const LayerRow& row : s.layers) {
    s.macs += row.macs;
    s.activation_bytes += row.activation_bytes;
  }
  return s;
}

std::string ModelSummary::table() const {
  std::vector<std::vector<std::string>> cells = {
      {"layer", "kind", "output", "parameters", "MACs", "activation"}};
  for (const LayerRow& row : layers)
    cells.push_back({row.name, row.kind, row.output.to_string(), with_separators(row.parameters),
                     row.macs > 0 ? millions(row.macs) : "", human_bytes(row.activation_bytes)});
  std::vector<size_t> width(cells.front().size());
  for (const auto& row : cells)
    for (size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());

  std::string text;
  for (size_t r = 0; r < cells.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < width.size(); ++c) {
      const std::string fill(width[c] - cells[r][c].size(), ' ');
      // Numbers to the right, names to the left.
      line += (c == 0 ? "" : "  ") + (c >= 3 ? fill + cells[r][c] : cells[r][c] + fill);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    if (r == 0) text += std::string(line.size(), '-') + "\n";
  }
  text += str("\n", kind, " on ", input.to_string(), "\n");
  text += "  parameters   " + with_separators(parameters) + " (" + human_bytes(parameter_bytes) +
          "), trainable " + with_separators(trainable) + "\n";
  text += "  MACs         " + millions(macs) + "\n";
  text += "  activations  " + human_bytes(activation_bytes) + " of layer outputs\n";
  text += str("  batch norms  ", batch_norms, " with ", batch_norm_channels, " channels\n");
  text += str("  state dict   ", state_keys, " keys\n");
  return text;
}

}  // namespace mtcki::nn
