// The commands of `mtcki` with their flags, for main.cpp, which parses them.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mtcki::cli {

struct Command {
  CLI::App* app;
  std::function<int()> run;  // once `app` has been parsed
};
// A command of a command stands before it.
using Commands = std::vector<Command>;

Commands add_commands(CLI::App* app, const std::vector<std::string>& argv);

}  // namespace mtcki::cli
