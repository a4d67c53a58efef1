// info: version, build, machine, kernels, data sets found.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/sets/dataset.h"
#include "data/sets/verify.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/build_info.h"

namespace mtcki::cli {

using nlohmann::json;

namespace {

int info_command(bool as_json) {
  json sets = json::array();
  for (const std::string& name : data::dataset_names())
    sets.push_back({{"name", name},
                    {"found", data::dataset_found(name)},
                    {"dir", data::dataset_default_dir(name)}});
  if (as_json) {
    json out = json::object();
    for (const auto& [label, value] : info_lines()) out[label] = value;
    out["datasets"] = sets;
    std::printf("%s\n", out.dump(1, ' ', false, json::error_handler_t::replace).c_str());
    return 0;
  }
  for (const auto& [label, value] : info_lines()) put("{:<13} {}\n", label, value);
  std::string found;
  for (const json& s : sets)
    if (s["found"].get<bool>()) found += (found.empty() ? "" : ", ") + s["name"].get<std::string>();
  std::printf("%-13s %s (mtcki data list)\n", "data sets", found.c_str());
  return 0;
}

}  // namespace

void add_info(CommandLine* line) {
  const auto as_json = std::make_shared<bool>(false);
  CLI::App* info =
      line->app->add_subcommand("info", "version, build, machine, kernels, data sets found");
  info->add_flag("--json", *as_json, "as JSON");
  line->commands.push_back({info, [as_json] { return info_command(*as_json); }});
}

}  // namespace mtcki::cli
