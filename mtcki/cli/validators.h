// Checks of flags whose errors say what to write, and help that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mtcki::cli {

// They add nothing to the help, whose texts name the choices.
CLI::Validator one_of(const std::vector<std::string>& choices);
CLI::Validator range(int64_t low, int64_t high);
CLI::Validator count();  // 0 or more

// Help of flags that mean the same in every command.
extern const char kNameMap[], kWeightsKey[], kDataSize[], kDataFit[], kSkipBad[];

// What to write instead, in the form of our own messages.
std::string parse_error(const CLI::App* app, const CLI::ParseError& e);

}  // namespace mtcki::cli
