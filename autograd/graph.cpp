// Looking at a graph: Graphviz text, and the bytes that it keeps alive.
#include <sstream>
#include <unordered_set>

#include "autograd/node.h"
#include "tensor/allocator.h"

namespace mtcki {

namespace {

template <class Visit>
void walk(const Variable& root, const Visit& visit) {
  if (!root.defined() || !root.impl()->node) return;
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> list{root.impl()->node.get()};
  seen.insert(list.back());
  while (!list.empty()) {
    const Node* node = list.back();
    list.pop_back();
    visit(*node);
    for (const auto& next : node->next)
      if (next && seen.insert(next.get()).second) list.push_back(next.get());
  }
}

size_t bytes_of(const Node& node, std::unordered_set<const void*>* seen) {
  size_t bytes = 0;
  for (const auto& slot : node.saved) {
    const Tensor& t = slot->tensor;
    if (t.defined() && (!seen || seen->insert(t.raw()).second)) bytes += t.nbytes();
  }
  return bytes;
}

}  // namespace

size_t saved_bytes(const Variable& root) {
  std::unordered_set<const void*> seen;
  size_t bytes = 0;
  walk(root, [&](const Node& node) { bytes += bytes_of(node, &seen); });
  return bytes;
}

std::string graph_dot(const Variable& root) {
  std::ostringstream out;
  out << "digraph autograd {\n  rankdir=BT;\n  node [shape=box, fontname=\"sans-serif\"];\n";
  walk(root, [&](const Node& node) {
    out << "  n" << node.sequence << " [label=\"" << node.op << "\\n"
        << node.shape << " " << name_of(node.dtype);
    if (!node.module.empty()) out << "\\n" << node.module;
    const size_t bytes = bytes_of(node, nullptr);
    if (bytes) out << "\\nsaves " << human_bytes(bytes);
    out << "\"" << (node.is_leaf ? ", style=filled, fillcolor=\"#dddddd\"" : "") << "];\n";
    for (const auto& next : node.next)
      if (next) out << "  n" << next->sequence << " -> n" << node.sequence << ";\n";
  });
  out << "}\n";
  return out.str();
}

}  // namespace mtcki
