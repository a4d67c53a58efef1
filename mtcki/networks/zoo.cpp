#include "mtcki/networks/zoo.h"

#include <fmt/format.h>

#include <sstream>

namespace mtcki {

extern const char kZoo[];  // zoo.txt, embedded by cmake/MtckiStyle.cmake

namespace {

std::vector<ZooFile> read_zoo() {
  std::vector<ZooFile> out;
  std::istringstream lines(kZoo);
  ZooFile of_zoo;
  std::string zoo, base, file;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    if (line.starts_with("#")) continue;
    if (line.starts_with("@")) {
      words.ignore(1);
      words >> zoo >> of_zoo.data >> base >> of_zoo.mean >> of_zoo.std >> of_zoo.name_map;
      if (of_zoo.name_map == "-") of_zoo.name_map.clear();
      continue;
    }
    ZooFile f = of_zoo;
    words >> f.name >> f.model >> f.parameters_m >> f.top1 >> file >> f.sha256;
    f.name = zoo + "/" + f.data + "/" + f.name;
    f.url = base + file;
    out.push_back(f);
  }
  return out;
}

}  // namespace

const std::vector<ZooFile>& zoo() {
  static const std::vector<ZooFile> files = read_zoo();
  return files;
}

std::string zoo_table() {
  std::string out = fmt::format("{:<37}{:<21}{:>9}{:>9}\n", "name", "model", "M params", "top-1 %");
  for (const ZooFile& f : zoo())
    out += fmt::format("{:<37}{:<21}{:>9.2f}{:>9.2f}\n", f.name, f.model, f.parameters_m, f.top1);
  return out;
}

std::string zoo_toml(const ZooFile& f) {
  const std::string file = f.url.substr(f.url.rfind('/') + 1);
  const std::string name = f.name.substr(f.name.rfind('/') + 1);
  return fmt::format(
      "# curl -LO {}\n# sha256sum {}   {} {}\n"
      "# mtcki eval --weights {} --model {} --data {} --mean {} --std {}   published: {:.2f} %\n"
      "[[teachers]]\nname = \"{}\"\nmodel = \"{}\"\nweights = \"{}\"\n{}mean = [{}]\nstd = [{}]\n",
      f.url, file, f.sha256.size() == 64 ? "is" : "begins with", f.sha256, file, f.model, f.data,
      f.mean, f.std, f.top1, name, f.model, file,
      f.name_map.empty() ? "" : fmt::format("name_map = \"{}\"\n", f.name_map), f.mean, f.std);
}

}  // namespace mtcki
