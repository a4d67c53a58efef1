#include "tensor/cuda/native/graph_api.h"

#include <dlfcn.h>

namespace mtcki::cuda {

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char why[1024] = {0};
  cudnnGetLastErrorString(why,
                          sizeof why);  // the precise reason; the status is only a class of them
  throw CudnnError(str("cuDNN, ", what, ": ", cudnnGetErrorString(status), ", ", why));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) : state_(std::make_shared<State>()) {
  check(cudnnBackendCreateDescriptor(type, &state_->raw), "new descriptor");
}

Descriptor::State::~State() {
  if (raw) cudnnBackendDestroyDescriptor(raw);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name,
                            const std::vector<Descriptor>& children) {
  std::vector<cudnnBackendDescriptor_t> raws;
  for (const Descriptor& d : children) {
    raws.push_back(d.raw());
    state_->children.push_back(d.state_);
  }
  return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raws.size()),
                 raws.data());
}

Descriptor& Descriptor::finalize(const char* what) {
  check(cudnnBackendFinalize(raw()), what);
  return *this;
}

Descriptor& Descriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                int64_t count, const void* values) {
  check(cudnnBackendSetAttribute(raw(), name, type, count, values), "attribute");
  return *this;
}

int64_t Descriptor::integer(cudnnBackendAttributeName_t name, int64_t otherwise) const {
  const std::vector<int64_t> v = values<int64_t>(name, CUDNN_TYPE_INT64, 1);
  return v.empty() ? otherwise : v[0];
}

std::string Descriptor::text(cudnnBackendAttributeName_t name) const {
  int64_t n = 0;
  if (cudnnBackendGetAttribute(raw(), name, CUDNN_TYPE_CHAR, 0, &n, nullptr) !=
      CUDNN_STATUS_SUCCESS)
    return {};
  std::string s(static_cast<size_t>(n), '\0');
  check(cudnnBackendGetAttribute(raw(), name, CUDNN_TYPE_CHAR, n, &n, s.data()), "text");
  return s;
}

int64_t Descriptor::get(cudnnBackendAttributeName_t name, std::vector<Descriptor>& children) const {
  std::vector<cudnnBackendDescriptor_t> raws;
  for (const Descriptor& d : children) raws.push_back(d.raw());
  int64_t n = 0;
  check(cudnnBackendGetAttribute(raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 static_cast<int64_t>(raws.size()), &n,
                                 raws.empty() ? nullptr : raws.data()),
        "descriptors");
  return n;
}

Descriptor device_of_process(int index) {
  return Descriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
      .set(CUDNN_ATTR_DEVICEPROP_DEVICE_ID, static_cast<int32_t>(index))
      .finalize("device properties");
}

Descriptor device_from_json(const std::string& text) {
  return Descriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
      .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, text)
      .finalize("device properties");
}

void keep_nvrtc_loaded() {
  static const bool once = [] {
    const std::string name = str("libnvrtc.so.", cudnnGetCudartVersion() / 1000);
    return dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr;
  }();
  static_cast<void>(once);  // without it everything works, only slower
}

}  // namespace mtcki::cuda
