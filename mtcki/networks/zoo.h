// Weights that others publish and that networks of this project read: zoo.txt as a table.
#pragma once

#include <string>
#include <vector>

namespace mtcki {

struct ZooFile {
  std::string name;   // "chenyaofo/cifar10/resnet20"
  std::string data;   // data set that it was trained on
  std::string model;  // registry name
  std::string name_map, url;
  std::string sha256;         // or its beginning
  std::string mean, std;      // "0.4914,0.4822,0.4465"
  double parameters_m, top1;  // as published: millions, percent
};
const std::vector<ZooFile>& zoo();

// A line per file; the table of docs/teachers.md.
std::string zoo_table();
// What to write into a configuration, with where the file is and how to check it.
std::string zoo_toml(const ZooFile& file);

}  // namespace mtcki
