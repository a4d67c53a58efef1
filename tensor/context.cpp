#include "tensor/context.h"

#include <vector>

#include "tensor/cuda/ranges.h"

namespace mtcki {

namespace {

struct Entry {
  ContextScope::Kind kind;
  const char* name;
};
thread_local std::vector<Entry> stack;

void push_entry(ContextScope::Kind kind, const char* name) {
  stack.push_back({kind, name});
  if (cuda::ranges_wanted()) cuda::push_range(*name ? name : "(root)");
}
void pop_entry() {
  stack.pop_back();
  if (cuda::ranges_wanted()) cuda::pop_range();
}

std::string join(ContextScope::Kind kind) {
  const char separator = kind == ContextScope::Kind::stage ? '/' : '.';
  std::string text;
  for (const Entry& e : stack) {
    if (e.kind != kind || *e.name == '\0') continue;
    if (!text.empty()) text += separator;
    text += e.name;
  }
  return text;
}

}  // namespace

std::string context_stage() { return join(ContextScope::Kind::stage); }
std::string context_module() { return join(ContextScope::Kind::module); }

std::string context_path() {
  const std::string stage = context_stage(), module = context_module();
  if (stage.empty()) return module;
  return module.empty() ? stage : stage + "/" + module;
}

ContextScope::ContextScope(Kind kind, const std::string& name) { push(kind, name.c_str()); }
ContextScope::ContextScope(Kind kind, const char* name) { push(kind, name); }
ContextScope::~ContextScope() { pop_entry(); }
void ContextScope::push(Kind kind, const char* name) { push_entry(kind, name); }

ContextReplay::ContextReplay(const std::string& module_path) {
  push_entry(ContextScope::Kind::module, module_path.c_str());
}
ContextReplay::~ContextReplay() { pop_entry(); }

}  // namespace mtcki
