#include "mtcki/networks/wrapped_weights.h"

#include <algorithm>
#include <map>
#include <utility>

#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

using Tensors = std::map<std::string, Tensor>;

// "conv1.weight_g" -> "conv1.weight" where that ends it, else "".
std::string without(const std::string& name, const std::string& tail) {
  return name.ends_with(tail) ? name.substr(0, name.size() - tail.size()) : "";
}

// "conv1.parametrizations.weight" -> "conv1.weight".
std::string plain_name(std::string name) {
  constexpr char kPart[] = "parametrizations.";
  if (const size_t at = name.rfind(kPart); at != std::string::npos)
    name.erase(at, sizeof(kPart) - 1);
  return name;
}

// The norm is over the dimensions that g does not have.
Tensor weight_norm(const Tensor& g, const Tensor& v) {
  std::vector<int> dims;
  for (int d = 0; d < v.rank(); ++d)
    if (d >= g.rank() || g.size(d) == 1) dims.push_back(d);
  return mul(v, div(g, sqrt(sum(mul(v, v), dims, true))));
}

// One number for all, or for each place in one dimension; two parts of a weight that somebody put
// together in another way have the same names.
bool may_be_norm(const Tensor& g, const Tensor& v) {
  const auto sides =
      std::count_if(g.shape().begin(), g.shape().end(), [](int64_t n) { return n != 1; });
  return sides <= 1 && g.numel() <= v.numel();
}

// The factor beside `name`, which is the second of a pair, and what both make.
struct Pair {
  std::string result, first;
  bool normed = false;
};
Pair pair_of(const std::string& name) {
  if (const std::string base = without(name, "_mask"); !base.empty())
    return {base, base + "_orig", false};
  if (const std::string base = without(name, "_v"); !base.empty()) return {base, base + "_g", true};
  if (const std::string base = without(name, ".original1"); !base.empty())
    return {plain_name(base), base + ".original0", true};
  return {};
}

// All names below the prefix are wanted, and all that are wanted are there.
bool holds(const std::string& prefix, const nn::StateDict& wanted, const Tensors& given) {
  size_t found = 0, below = 0;
  for (const auto& [name, t] : wanted) {
    const auto it = given.find(prefix + name);
    const bool there = it != given.end() && it->second.shape() == t.shape();
    if (!there && !name.ends_with("num_batches_tracked")) return false;
    found += there ? 1 : 0;
  }
  for (auto it = given.lower_bound(prefix); it != given.end() && it->first.starts_with(prefix);
       ++it)
    ++below;
  return below == found;
}

// " NAME = v v v" of a mean or a deviation per channel, which some put before their network.
std::string normalisation(const std::string& name, const Tensor& t) {
  const std::string last = name.substr(name.rfind('.') + 1);
  const bool named =
      last.find("mean") != std::string::npos || last.find("std") != std::string::npos;
  if (!named || last == "running_mean" || t.numel() < 1 || t.numel() > 3 || !is_floating(t.dtype()))
    return "";
  std::string out = " " + name.substr(0, 80) + " =";
  for (const float v : t.to(DType::f32).to_vector<float>()) out += str(" ", v);
  return out;
}

}  // namespace

void compose_weights(data::NamedTensors* tensors, std::vector<std::string>* notes) {
  Tensors given(tensors->begin(), tensors->end());
  std::map<std::string, std::string> made;  // by the name of its first factor
  std::string first_made;
  for (const auto& [name, second] : *tensors) {
    const Pair p = pair_of(name);
    const auto it = given.find(p.first);
    if (p.result.empty() || it == given.end() || !is_floating(it->second.dtype())) continue;
    const Tensor a = it->second.to(DType::f32), b = second.to(DType::f32);
    if (p.normed ? !may_be_norm(a, b) : a.shape() != b.shape()) continue;
    given[p.first] = p.normed ? weight_norm(a, b) : mul(a, b);
    made[p.first] = p.result;
    given.erase(name);
    if (first_made.empty()) first_made = p.result;
  }
  if (made.empty()) return;
  data::NamedTensors out;
  for (const auto& [name, t] : *tensors) {
    const auto it = given.find(name);
    if (it == given.end()) continue;
    const auto result = made.find(name);
    out.emplace_back(result == made.end() ? name : result->second, it->second);
  }
  *tensors = std::move(out);
  if (notes)
    notes->push_back(str("multiplied the two factors of ", made.size(), " weights (", first_made,
                         ", ...): pruning masks or weight norm"));
}

void take_nested(const nn::StateDict& wanted, data::NamedTensors* tensors,
                 std::vector<std::string>* notes) {
  const Tensors given(tensors->begin(), tensors->end());
  const std::string first = wanted.empty() ? "" : wanted.front().first;
  std::vector<std::string> prefixes;
  for (const auto& [name, t] : given) {
    const std::string prefix = without(name, "." + first);
    if (!prefix.empty() && holds(prefix + ".", wanted, given)) prefixes.push_back(prefix + ".");
  }
  if (prefixes.empty() || holds("", wanted, given)) return;
  std::sort(prefixes.begin(), prefixes.end(),
            [](const auto& a, const auto& b) { return a.size() < b.size(); });
  const std::string taken = prefixes[0];
  const bool above = std::all_of(wanted.begin(), wanted.end(), [&](const auto& w) {
    const auto it = given.find(w.first);
    return it != given.end() && it->second.shape() == w.second.shape();
  });
  if (above) prefixes.emplace_back();  // without a prefix, too
  for (const std::string& other : prefixes)
    for (const auto& [name, t] : wanted)
      if (given.count(taken + name) > 0 && given.count(other + name) > 0 &&
          !identical(given.at(taken + name), given.at(other + name)))
        throw DataError(str("the file holds several networks that fit, below \"",
                            taken.substr(0, taken.size() - 1), "\" and ",
                            other.empty() ? "at the top" : str("\"", without(other, "."), "\""),
                            "; name_map, a file of lines: the part that is meant, and \"OTHER -\" "
                            "for each other one"));
  data::NamedTensors out;
  std::string left, normalises;
  for (const auto& [name, t] : *tensors)
    if (name.starts_with(taken)) {
      out.emplace_back(name.substr(taken.size()), t);
    } else {
      if (left.empty()) left = name;
      normalises += normalisation(name, t);
    }
  const std::string others = left.empty() ? ""
                                          : str(" and left out ", tensors->size() - out.size(),
                                                " more (", left.substr(0, 80), ", ...)");
  if (notes) notes->push_back(str("took the ", out.size(), " names below '", taken, "'", others));
  if (notes && !normalises.empty())
    notes->push_back("it normalised its images itself:" + normalises +
                     "; say so with mean and std, of images in [0, 1]");
  *tensors = std::move(out);
}

}  // namespace mtcki
