// The reference of all keys as a table, from what keys.cpp knows of them.
#include <fmt/format.h>

#include "mtcki/config/keys.h"

namespace mtcki {

std::string config_reference() {
  RunConfig sample;
  sample.teachers.resize(1);
  sample.students.resize(1);
  std::string out, head = "\n";
  for (const config_keys::Field& f : config_keys::fields(sample)) {
    const std::string plain = config_keys::index_free(f.path);
    const size_t dot = plain.rfind('.');
    const std::string owner = dot == std::string::npos ? "" : plain.substr(0, dot);
    if (owner != head) {
      head = owner;
      const std::string title = owner.empty()                  ? "Run"
                                : config_keys::is_array(owner) ? "[[" + owner + "]]"
                                                               : "[" + owner + "]";
      out += fmt::format("{}## {}\n\n| key | default | accepted | meaning |\n|---|---|---|---|\n",
                         out.empty() ? "" : "\n", title);
    }
    const auto cell = [](std::string text) {
      for (size_t p = 0; (p = text.find('|', p)) != std::string::npos; p += 2) text.insert(p, "\\");
      return text;
    };
    const std::string accepted = f.accepted();
    out += fmt::format("| `{}` | `{}` | {} | {} |\n", plain, f.value(),
                       cell(accepted.empty() ? f.type() : accepted), cell(f.help));
  }
  return out;
}

}  // namespace mtcki
