// Internal to the native device: descriptors of cuDNN's graph API with an owner, and its errors.
// Everything but the execution of a plan works without a GPU when the properties of a device are
// given (device_from_json).
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/error.h"

namespace mtcki::cuda {

struct CudnnError : Error {
  explicit CudnnError(const std::string& m) : Error(m) {}
};
// Throws "cuDNN, WHAT: status, reason".
void check(cudnnStatus_t status, const char* what);

// C++ type -> how cuDNN calls it.
template <class T>
struct Attribute;
#define MTCKI_ATTRIBUTE(T, name)                    \
  template <>                                       \
  struct Attribute<T> {                             \
    static constexpr auto type = CUDNN_TYPE_##name; \
  };
MTCKI_ATTRIBUTE(int64_t, INT64)
MTCKI_ATTRIBUTE(int32_t, INT32)
MTCKI_ATTRIBUTE(float, FLOAT)
MTCKI_ATTRIBUTE(bool, BOOLEAN)
MTCKI_ATTRIBUTE(void*, VOID_PTR)
MTCKI_ATTRIBUTE(cudnnDataType_t, DATA_TYPE)
MTCKI_ATTRIBUTE(cudnnConvolutionMode_t, CONVOLUTION_MODE)
MTCKI_ATTRIBUTE(cudnnBackendHeurMode_t, HEUR_MODE)
MTCKI_ATTRIBUTE(cudnnBackendKnobType_t, KNOB_TYPE)
#undef MTCKI_ATTRIBUTE

// Shared owner of one descriptor; keeps those that it refers to.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  cudnnBackendDescriptor_t raw() const { return state_ ? state_->raw : nullptr; }
  explicit operator bool() const { return raw() != nullptr; }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, T value) {
    return set_raw(name, Attribute<T>::type, 1, &value);
  }
  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    return set_raw(name, Attribute<T>::type, static_cast<int64_t>(values.size()), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::string& text) {
    return set_raw(name, CUDNN_TYPE_CHAR, static_cast<int64_t>(text.size()), text.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& child) {
    return set(name, std::vector<Descriptor>{child});
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& children);
  Descriptor& finalize(const char* what);

  int64_t integer(cudnnBackendAttributeName_t name, int64_t otherwise) const;
  std::string text(cudnnBackendAttributeName_t name) const;  // empty when there is none
  // Fills descriptors that exist already; returns how many there were.
  int64_t get(cudnnBackendAttributeName_t name, std::vector<Descriptor>& children) const;
  template <class T>
  std::vector<T> values(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                        int64_t most) const {
    std::vector<T> out(static_cast<size_t>(most));
    int64_t n = 0;
    if (cudnnBackendGetAttribute(raw(), name, type, most, &n, out.data()) != CUDNN_STATUS_SUCCESS)
      n = 0;
    out.resize(static_cast<size_t>(n < most ? n : most));
    return out;
  }

 private:
  struct State {
    cudnnBackendDescriptor_t raw = nullptr;
    std::vector<std::shared_ptr<State>> children;
    ~State();
  };
  Descriptor& set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                      int64_t count, const void* values);
  std::shared_ptr<State> state_;
};

// Properties of a GPU: of the process's own, or from the JSON text of one that is not there.
Descriptor device_of_process(int index);
Descriptor device_from_json(const std::string& text);
// Each candidate that cuDNN compiles at run time opens and closes libnvrtc, about 10 ms each,
// unless it stays loaded. Call before the first query.
void keep_nvrtc_loaded();

}  // namespace mtcki::cuda
