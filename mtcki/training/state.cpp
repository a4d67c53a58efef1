#include "mtcki/training/state.h"

#include "nn/state_dict.h"
#include "tensor/error.h"

namespace mtcki {

const nlohmann::json& State::number(const std::string& name) const {
  const auto it = from_->meta.find(prefix_ + name);
  if (it == from_->meta.end())
    throw DataError(str("the checkpoint lacks \"", prefix_, name,
                        "\"; it is of another version: start over with --fresh"));
  return *it;
}

Tensor State::saved(const std::string& name) const { return entry(from_->tensors, prefix_ + name); }

void State::operator()(const std::string& name, Tensor& tensor) {
  if (!loading()) {
    to_->put({{name, tensor.plain()}}, prefix_);
    return;
  }
  const Tensor value = saved(name);
  if (!value.defined() || value.shape() != tensor.shape())
    throw DataError(
        str("the checkpoint's \"", prefix_, name, "\" is ",
            value.defined() ? "of shape " + value.shape().to_string() : std::string("missing"),
            ", expected ", tensor.shape().to_string()));
  tensor.copy_(value);
}

void State::optional(const std::string& name, Tensor& tensor, Device device) {
  if (!loading()) {
    if (tensor.defined()) to_->put({{name, tensor.plain()}}, prefix_);
    return;
  }
  const Tensor value = saved(name);
  if (value.defined() && tensor.defined() && tensor.shape() == value.shape())
    tensor.copy_(value);
  else
    tensor = value.defined() ? value.clone().to(device) : Tensor();
}

}  // namespace mtcki
