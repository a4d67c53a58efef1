// A network for use elsewhere: ONNX, which ONNX Runtime, OpenCV and TensorRT read. A batch norm
// behind a convolution is a scale and a shift of its output, so it can be folded into the
// convolution's weights; what is left of the network is smaller and quicker, and answers the same.
//
// Expect: batch norms 9, folded 0; convolutions 9 and 9
#include <cstdio>
#include <filesystem>
#include <string>

#include "mtcki/export/onnx.h"
#include "nn/models/model.h"
#include "tensor/error.h"

using namespace mtcki;

namespace {

// How many nodes of a kind the file has. Each node holds its kind as field 4 of its message: a byte
// 34 (a quotation mark), the length, the letters.
int count(const std::string& bytes, const std::string& kind) {
  int n = 0;
  const std::string field = str('"', static_cast<char>(kind.size()), kind);
  for (size_t at = bytes.find(field); at != std::string::npos; at = bytes.find(field, at + 1)) ++n;
  return n;
}

}  // namespace

int main() {
  const nn::ModelSpec spec{"resnet8", 3, 32, 10};
  nn::Init init(0);
  const auto net = nn::make_classifier(spec, init);
  net->eval();
  const data::Normalization cifar{{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};

  const std::string plain = onnx_model(*net, spec, cifar);
  const std::string folded = onnx_model(*net, spec, cifar, {.fold_bn = true});
  const std::string path = (std::filesystem::temp_directory_path() / "resnet8.onnx").string();
  write_onnx(path, *net, spec, cifar, {.fold_bn = true});

  std::printf("%s, %d bytes\n", path.c_str(), static_cast<int>(folded.size()));
  std::printf("in Python: onnxruntime.InferenceSession(\"%s\").run(None, {\"images\": x})\n",
              path.c_str());
  for (const char* kind : {"Conv", "BatchNormalization", "Relu", "Add", "Gemm"})
    std::printf("%-20s %3d, folded %3d\n", kind, count(plain, kind), count(folded, kind));
  std::printf("batch norms %d, folded %d; convolutions %d and %d\n",
              count(plain, "BatchNormalization"), count(folded, "BatchNormalization"),
              count(plain, "Conv"), count(folded, "Conv"));
}
