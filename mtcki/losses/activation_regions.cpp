#include "mtcki/losses/activation_regions.h"

#include <algorithm>
#include <map>

#include "autograd/functions.h"
#include "autograd/gradients.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

Variable in_f32(const Variable& x) {
  return x.data().dtype() == DType::bf16 ? cast(x, DType::f32) : x;
}

Variable distance(const Variable& a, const Tensor& b) { return mean(square(sub(a, Variable(b)))); }

[[noreturn]] void no_map(const std::string& network) {
  throw UsageError(str("distill.cam: ", network,
                       " does not end with global average pooling and one linear layer"));
}

// Height and width of a map.
using Size = std::pair<int64_t, int64_t>;

// The last of the maps of each size.
std::map<Size, Variable> by_size(const std::vector<Variable>& maps) {
  std::map<Size, Variable> out;
  for (const Variable& a : maps) out[{a.size(2), a.size(3)}] = a;
  return out;
}

// R of the maps of these sizes, for the class that `seed` marks in every row.
std::vector<Variable> regions(const std::vector<Variable>& maps, const std::vector<Size>& sizes,
                              const Variable& logits, const Tensor& seed) {
  const std::map<Size, Variable> all = by_size(maps);
  std::vector<Variable> at, out;
  for (const Size& size : sizes) at.push_back(all.at(size));
  const std::vector<Tensor> g = gradients(logits, at, seed);
  for (size_t i = 0; i < at.size(); ++i) out.push_back(activation_region(at[i], g[i]));
  return out;
}

}  // namespace

Variable class_activation(const Variable& map, const Tensor& classifier) {
  return conv2d(in_f32(map),
                Variable(classifier.reshape({classifier.size(0), classifier.size(1), 1, 1})), {});
}

Variable activation_region(const Variable& map, const Tensor& gradient) {
  const Tensor alpha = mean(gradient.to(DType::f32), {2, 3}, true);
  return sum(mul(in_f32(map), Variable(alpha)), {1});
}

ActivationMaps::ActivationMaps(const StudentTermContext& c) : student_(c.student) {
  for (size_t m = 0; m < c.teachers.size(); ++m) {
    classifiers_.push_back(c.teachers[m].class_weights());
    if (!classifiers_.back().defined()) no_map("teacher " + c.teachers[m].name());
  }
  if (!student_.net().class_weights().defined()) no_map("student " + student_.name());
}

Variable ActivationMaps::loss(const StudentStep& s) {
  if (!s.student.map.defined()) no_map("student " + student_.name());
  const Variable own = class_activation(s.student.map, student_.net().class_weights().data());
  std::vector<Variable> terms;
  for (size_t m = 0; m < s.views.size(); ++m) {
    if (!s.views[m].map.defined()) no_map(str("teacher ", m));
    const Variable theirs = class_activation(s.views[m].map.detach(), classifiers_[m]);
    const int64_t h = std::min(own.size(2), theirs.size(2)),
                  w = std::min(own.size(3), theirs.size(3));
    const auto fitted = [&](const Variable& c) {
      return c.size(2) == h && c.size(3) == w ? c : adaptive_avg_pool2d(c, h, w);
    };
    terms.push_back(distance(fitted(own), fitted(theirs).data()));
  }
  return weighted_sum(terms, s.weights);
}

Variable ActivationRegions::loss(const StudentStep& s) {
  std::map<Size, Variable> common = by_size(s.student.taps);
  for (const Teacher::View& view : s.views) {
    const std::map<Size, Variable> theirs = by_size(view.stage_inputs);
    std::erase_if(common, [&](const auto& entry) { return !theirs.contains(entry.first); });
  }
  if (common.empty())
    throw UsageError("distill.grad_cam: no stages of teachers and student have maps of one size");
  std::vector<Size> sizes;
  for (const auto& [size, map] : common) sizes.push_back(size);
  const Tensor seed = one_hot(argmax(s.targets, 1), s.targets.size(1));
  const std::vector<Variable> own = regions(s.student.taps, sizes, s.student.logits, seed);
  std::vector<Variable> terms;
  for (const Teacher::View& view : s.views) {
    const std::vector<Variable> theirs = regions(view.stage_inputs, sizes, view.logits, seed);
    Variable total;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const Variable term = distance(own[i], theirs[i].data());
      total = total.defined() ? add(total, term) : term;
    }
    terms.push_back(total);
  }
  return weighted_sum(terms, s.weights);
}

}  // namespace mtcki
