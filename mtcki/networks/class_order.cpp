#include "mtcki/networks/class_order.h"

#include <algorithm>
#include <map>

#include "nn/layers.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

// from[i] is the place among `has` of what `wants` has at i; empty: not the same names.
std::vector<int64_t> places(const std::vector<std::string>& has,
                            const std::vector<std::string>& wants) {
  std::map<std::string, int64_t> at;
  for (const std::string& name : has) at.emplace(name, static_cast<int64_t>(at.size()));
  std::vector<int64_t> from;
  if (at.size() != wants.size() || has.size() != wants.size()) return from;
  for (const std::string& name : wants) {
    const auto it = at.find(name);
    if (it == at.end()) return {};
    from.push_back(it->second);
  }
  return from;
}

nn::Linear* last_linear(nn::Classifier& net) {
  nn::Linear* last = nullptr;
  for (auto& [path, module] : net.named_modules())
    if (auto* linear = dynamic_cast<nn::Linear*>(module)) last = linear;
  return last;
}

void take_rows(nn::Linear& head, const std::vector<int64_t>& from) {
  const Tensor rows = Tensor::from(from, {static_cast<int64_t>(from.size())});
  const auto reorder = [&rows](const Variable& p) {
    Tensor target = p.data();
    target.copy_(index_select(target.to(Device::cpu()), rows).to(target.device()));
  };
  reorder(head.weight);
  if (head.bias) reorder(*head.bias);
}

}  // namespace

void align_classes(nn::Classifier& net, ModelCard* card, const data::ImageSet& set,
                   std::vector<std::string>* notes) {
  const auto say = [notes](const std::string& text) {
    if (notes) notes->push_back(text);
  };
  std::vector<std::string> has = card->classes;
  const double chance = 100.0 / static_cast<double>(std::max<int64_t>(1, set.num_classes()));
  const bool older = has.empty() && !card->spec.name.empty() && !set.listed_ids.empty();
  if (older && card->top1 > 2 * chance) has = set.listed_ids;
  // Without a set, and without a teacher that names its classes, there is nothing to compare.
  if (has.empty() || set.class_ids.empty() || has == set.class_ids) return;
  const std::vector<int64_t> from = places(has, set.class_ids);
  nn::Linear* head = last_linear(net);
  if (from.empty() || !head || head->weight.size(0) != set.num_classes()) {
    say(str("its classes (", has[0], ", ...) are not called as those of ", set.name, " (",
            set.class_ids[0],
            ", ...): unless these are other words for the same, in the same order, it was trained "
            "for something else"));
    return;
  }
  take_rows(*head, from);
  card->classes = set.class_ids;
  say(older ? "made by an earlier version, which numbered the classes by the lines of wnids.txt: "
              "they are in sorted order now"
            : str("its classes are those of ", set.name,
                  " in another order: they are in the set's order now"));
}

}  // namespace mtcki
