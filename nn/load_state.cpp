// Module::load_state_dict: strict, with one error for everything that does not fit.
#include <algorithm>
#include <set>
#include <unordered_map>

#include "nn/module.h"
#include "tensor/nearest_name.h"

namespace mtcki::nn {

namespace {

constexpr char kTracked[] = "num_batches_tracked";

bool ends_with(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() &&
         text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

// DataParallel wraps a network, or a part of it, into a child called "module".
std::string without_module_prefix(std::string name) {
  if (name.rfind("module.", 0) == 0) name.erase(0, 7);
  for (size_t at; (at = name.find(".module.")) != std::string::npos;) name.erase(at, 7);
  return name;
}

// A hostile file has names as long and as many as it likes.
constexpr size_t kLongest = 200, kMostListed = 20, kMostCandidates = 2000;

std::string shown(const std::string& name) {
  return name.size() <= kLongest ? name : name.substr(0, kLongest) + "...";
}

std::string nearest_hint(const std::string& name, const std::vector<std::string>& candidates) {
  std::vector<std::string> some;
  for (const std::string& c : candidates)
    if (c.size() <= kLongest && some.size() < kMostCandidates) some.push_back(c);
  const std::string nearest = nearest_name(name.substr(0, kLongest), some);
  return nearest.empty() ? "" : " (nearest: " + nearest + ")";
}

// line(entry) of the first ones, each on a line of its own.
template <class F>
void list(const std::vector<std::string>& entries, const F& line, std::string* text) {
  for (size_t i = 0; i < entries.size() && i < kMostListed; ++i) *text += line(entries[i]);
  if (entries.size() > kMostListed)
    *text += str("\n              and ", entries.size() - kMostListed, " more");
}

}  // namespace

void Module::load_state_dict(const StateDict& state, std::vector<std::string>* notes) {
  NamedList<Tensor> targets;
  for (auto& [name, p] : named_parameters()) targets.emplace_back(name, p->data());
  for (auto& [name, b] : named_buffers()) targets.emplace_back(name, *b);
  std::set<std::string> wanted;
  for (const auto& [name, t] : targets) wanted.insert(name);

  std::unordered_map<std::string, Tensor> given;
  std::vector<std::string> given_order, twice;
  int64_t stripped = 0, converted = 0, untracked = 0;
  for (const auto& [raw, tensor] : state) {
    std::string name = raw;
    if (wanted.count(name) == 0) {
      name = without_module_prefix(name);
      stripped += name != raw;
    }
    if (!given.emplace(name, tensor).second) twice.push_back(raw);
    given_order.push_back(name);
  }

  std::vector<std::string> missing, unexpected, mismatched;
  std::vector<std::pair<Tensor, Tensor>> copies;  // target, source
  for (auto& [name, target] : targets) {
    const auto it = given.find(name);
    if (it == given.end()) {
      if (ends_with(name, kTracked))
        ++untracked;
      else
        missing.push_back(name);
      continue;
    }
    const Tensor& source = it->second;
    if (source.shape() != target.shape()) {
      mismatched.push_back(str(name, ": file has ", source.shape().to_string(), ", model has ",
                               target.shape().to_string()));
    } else if (is_floating(source.dtype()) != is_floating(target.dtype())) {
      mismatched.push_back(str(name, ": file has ", name_of(source.dtype()), ", model has ",
                               name_of(target.dtype())));
    } else {
      converted += source.dtype() != target.dtype();
      copies.emplace_back(target, source);
    }
  }
  for (const std::string& name : given_order)
    if (wanted.count(name) == 0) unexpected.push_back(name);

  if (!missing.empty() || !unexpected.empty() || !mismatched.empty() || !twice.empty()) {
    std::string text =
        str("load_state_dict: the weights do not fit ", kind(), ": ", missing.size(), " missing, ",
            unexpected.size(), " unexpected, ", mismatched.size(), " of another shape or type");
    using Name = const std::string&;
    list(
        missing, [&](Name n) { return "\n  missing     " + n + nearest_hint(n, unexpected); },
        &text);
    const std::vector<std::string> all(wanted.begin(), wanted.end());
    const auto& free = missing.empty() ? all : missing;
    list(
        unexpected, [&](Name n) { return "\n  unexpected  " + shown(n) + nearest_hint(n, free); },
        &text);
    list(
        mismatched, [](Name line) { return "\n  mismatch    " + line; }, &text);
    list(
        twice, [](Name n) { return "\n  twice       " + shown(n); }, &text);
    text += "\n  check the architecture and the number of classes, or rename with --name-map";
    throw DataError(text);
  }
  for (auto& [target, source] : copies) target.copy_(source.to(target.device()));

  if (notes == nullptr) return;
  if (stripped > 0) notes->push_back(str("removed the prefix 'module.' from ", stripped, " names"));
  if (converted > 0) notes->push_back(str("converted the element type of ", converted, " tensors"));
  if (untracked > 0)
    notes->push_back(str(untracked, " num_batches_tracked were absent and keep their value"));
}

}  // namespace mtcki::nn
