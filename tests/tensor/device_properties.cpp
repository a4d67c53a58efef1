// device_properties OUT.json             what cuDNN needs to know of GPU 0, as JSON: the form of tests/data/devices/
// device_properties OUT.json FILE.json   the same of a description: shows what cuDNN reads from it, without a GPU
#include <cstdio>
#include <fstream>
#include <sstream>

#include "tensor/cuda/native/graph_api.h"
#include "tensor/cuda/runtime.h"

int main(int argc, char** argv) {
  using namespace mtcki;
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: %s OUT.json [FILE.json]\n", argv[0]);
    return 2;
  }
  try {
    cuda::Descriptor device;
    if (argc == 3) {
      std::ifstream in(argv[2]);
      std::ostringstream text;
      text << in.rdbuf();
      if (!in) throw DataError(str(argv[2], ": cannot be read"));
      device = cuda::device_from_json(text.str());
    } else {
      cuda::use_device(0);
      device = cuda::device_of_process(0);
    }
    std::ofstream out(argv[1]);
    out << device.text(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) << "\n";
    out.close();
    if (!out) throw DiskError(str(argv[1], ": cannot be written"));
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
}
