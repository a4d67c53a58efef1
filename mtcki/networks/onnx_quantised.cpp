// QuantizeLinear and DequantizeLinear, which quantisation-aware training and quantisers leave in.
#include <algorithm>
#include <cmath>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::onnx {

bool Builder::quantised(const std::string& op) {
  const bool back = op == "DequantizeLinear";
  if (!back && op != "QuantizeLinear") return false;
  Tensor scale = constant(1).to(DType::f64),
         zero = has(2) ? constant(2).to(DType::f64) : Tensor::zeros(scale.shape(), DType::f64);
  const int64_t d = attribute("axis", int64_t{1});
  attribute("saturate", int64_t{1});
  const bool is_constant = input(0).is_constant();
  if (is_constant && scale.numel() > 1) {  // one for each channel
    Sizes sizes(static_cast<size_t>(constant(0).rank()), 1);
    sizes[static_cast<size_t>(axis(d, sizes.size()))] = -1;
    scale = scale.reshape(Shape(sizes)), zero = zero.reshape(Shape(sizes));
  }
  if (back && is_constant) return give(mul(sub(constant(0).to(DType::f64), zero), scale)), true;
  if (!is_constant && (scale.numel() != 1 || zero.numel() != 1 || !(scale.item() > 0)))
    fail("one positive scale for all values is needed");
  if (back) {
    const auto it = quantised_.find(node_->inputs[0]);
    if (it == quantised_.end() || it->second != std::pair{scale.item(), zero.item()})
      fail("only of what QuantizeLinear made, with the same scale and zero point");
    return give(activation(0)), true;
  }
  constexpr int64_t kU8 = 2, kI8 = 3;  // of TensorProto
  const auto known = has(2) ? types_.find(node_->inputs[2]) : types_.end();
  const int64_t type = !has(2) ? kU8 : known == types_.end() ? 0 : known->second;
  if (type != kU8 && type != kI8)
    fail("only to 8 bits, with a zero point that is a constant of the file");
  const double low = type == kI8 ? -128 : 0, high = low + 255;
  if (is_constant) {
    Tensor q = div(constant(0).to(DType::f64), scale);
    for (int64_t i = 0; i < q.numel(); ++i)
      q.data<double>()[i] = std::nearbyint(q.data<double>()[i]);
    return give(clamp(mtcki::add(q, zero), low, high).to(DType::i64)), true;
  }
  const double s = scale.item(), z = zero.item();
  const std::string note =
      "rounds values to 8 bits: here they are cut off at the ends, and not rounded";
  if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(note);
  give(unary("clamp", activation(0), {(low - z) * s, (high - z) * s}));
  quantised_[node_->outputs.at(0)] = {s, z};
  return true;
}

}  // namespace mtcki::onnx
