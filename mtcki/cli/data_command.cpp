#include <cstdio>
#include <filesystem>

#include "data/dataset.h"
#include "mtcki/cli/commands.h"
#include "tensor/error.h"

namespace mtcki::cli {

int data_list_command() {
  for (const std::string& name : data::dataset_names()) {
    const data::DatasetInfo info = data::dataset_info(name);
    std::error_code ec;
    const std::string dir = data::dataset_default_dir(name);
    const bool made = name.rfind("synth10", 0) == 0;
    const bool there = made || std::filesystem::is_directory(dir, ec);
    std::printf("%-14s %s\n", name.c_str(), info.description.c_str());
    std::printf("%-14s from: %s\n", "", info.source.c_str());
    if (!made) std::printf("%-14s %s: %s\n", "", there ? "found" : "not found", dir.c_str());
  }
  return 0;
}

}  // namespace mtcki::cli
