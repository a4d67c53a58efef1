// compare_runs DIR_A DIR_B FILE.safetensors TOLERANCE: all tensors together, ||a - b|| / ||b||.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "data/formats/state_file.h"
#include "tensor/error.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    const std::string name = argv[3];
    const auto a = mtcki::data::read_state_file(std::string(argv[1]) + "/" + name);
    const auto b = mtcki::data::read_state_file(std::string(argv[2]) + "/" + name);
    double difference = 0, length = 0;
    if (a.tensors.size() != b.tensors.size()) throw mtcki::DataError("different tensors");
    for (size_t i = 0; i < a.tensors.size(); ++i) {
      const auto x = a.tensors[i].second.to_vector<double>();
      const auto y = b.tensors[i].second.to_vector<double>();
      if (a.tensors[i].first != b.tensors[i].first || x.size() != y.size())
        throw mtcki::DataError("different tensors");
      for (size_t j = 0; j < x.size(); ++j) {
        difference += (x[j] - y[j]) * (x[j] - y[j]);
        length += y[j] * y[j];
      }
    }
    const double relative = std::sqrt(difference / length);
    std::printf("%s: %g\n", name.c_str(), relative);
    if (relative <= std::atof(argv[4])) return 0;
    std::fprintf(stderr, "%s differs by %g, allowed %s\n", name.c_str(), relative, argv[4]);
  } catch (const mtcki::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
  }
  return 1;
}
