// What the keys of metrics.jsonl and result.json mean, for people: the only place that says it.
#pragma once

#include <string>

namespace mtcki {

struct Label {
  std::string title;
  std::string unit;   // "%", "B" (bytes), "#" (a count), "" (none) or what stands behind the number
  int digits = 4;     // after the point with "%", else significant
  std::string help;   // one sentence; empty for a key that is not known
  bool main = false;  // a chart that is shown at once; the others are folded away
};
// A key that is not known is its own title, with blanks for underscores.
Label label_of(const std::string& key);
// "86.43 %", "208.7 MiB", "2.981 T", "0.2446".
std::string label_text(const Label& label, double value);

}  // namespace mtcki
