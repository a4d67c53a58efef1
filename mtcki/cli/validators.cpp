#include "mtcki/cli/validators.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki::cli {

CLI::Validator one_of(const std::vector<std::string>& choices) {
  return CLI::Validator(
      [choices](std::string& value) {
        if (std::count(choices.begin(), choices.end(), value) > 0) return std::string();
        std::string text = "\"" + value + "\": must be ";
        for (size_t i = 0; i < choices.size(); ++i)
          text += (i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ") + choices[i];
        return text + did_you_mean(value, choices);
      },
      "");
}

CLI::Validator range(int64_t low, int64_t high) {
  return CLI::Validator(
      [low, high](std::string& value) {
        char* end = nullptr;
        errno = 0;
        const int64_t v = std::strtoll(value.c_str(), &end, 10);
        if (value.empty() || *end != 0) return "\"" + value + "\": must be a whole number";
        if (errno == 0 && v >= low && v <= high) return std::string();
        return value +
               (v < low ? str(": must be at least ", low) : str(": must be at most ", high));
      },
      "");
}

CLI::Validator count() { return range(0, int64_t{1} << 40); }

const char kNameMap[] =
    "renaming of foreign keys: torchvision, timm, datafree, kuangliu, weiaicunzai, mmpretrain, or "
    "a "
    "file of lines \"old new\"";
const char kWeightsKey[] = "where in the file the weights are, e.g. state_dict_ema or 0.model";
const char kDataSize[] =
    "imagefolder, tiny-imagenet: bring every image to N x N; 0: they have one size";
const char kDataFit[] = "with --data-size: crop (the centre square) or pad (all of it on black)";
const char kSkipBad[] = "leave out up to n image files that cannot be read";

std::string parse_error(const CLI::App* app, const CLI::ParseError& e) {
  const std::string text = std::string(e.what()).substr(0, std::string(e.what()).find('\n'));
  if (dynamic_cast<const CLI::RequiredError*>(&e)) {
    std::string names;
    for (const CLI::App* s : app->get_subcommands(nullptr))
      names += (names.empty() ? "" : ", ") + s->get_name();
    for (const CLI::Option* o : app->get_options())
      if (o->get_required() && o->count() == 0)
        return o->get_name() + " is missing: " + o->get_description();
    if (!names.empty()) return "choose one of " + names;
  }
  // "--batch: 1: must be at least 2" is "--batch 1: ..." as elsewhere.
  const size_t colon = text.find(": ");
  const bool ours = dynamic_cast<const CLI::ValidationError*>(&e) != nullptr;
  return ours && colon != std::string::npos ? text.substr(0, colon) + text.substr(colon + 1) : text;
}

}  // namespace mtcki::cli
