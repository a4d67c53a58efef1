// zoo: weights that others publish and that can be teachers here.
#include <algorithm>
#include <cstdio>

#include "mtcki/cli/commands.h"
#include "mtcki/networks/zoo.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki::cli {

namespace {

int zoo_show_command(const std::string& name) {
  std::vector<std::string> names;
  for (const ZooFile& f : zoo()) names.push_back(f.name);
  const auto at = std::ranges::find(zoo(), name, &ZooFile::name);
  if (at == zoo().end())
    throw UsageError("zoo: unknown file \"" + name + "\"" + did_you_mean(name, names) +
                     " (mtcki zoo list)");
  std::fputs(zoo_toml(*at).c_str(), stdout);
  return 0;
}

}  // namespace

void add_zoo(CommandLine* line) {
  CLI::App* app = line->app->add_subcommand("zoo", "weights of others that can be teachers");
  app->require_subcommand(1);
  line->commands.push_back({app->add_subcommand("list", "their models and published accuracy"), [] {
                              std::fputs(zoo_table().c_str(), stdout);
                              return 0;
                            }});
  const auto name = std::make_shared<std::string>();
  CLI::App* show = app->add_subcommand(
      "show", "where one is, its checksum, and what to write into a configuration");
  show->add_option("name", *name, "of mtcki zoo list")->required();
  line->commands.push_back({show, [name] { return zoo_show_command(*name); }});
}

}  // namespace mtcki::cli
