#include "tensor/context.h"

#include <vector>

namespace mtcki {

namespace {

struct Entry {
  ContextScope::Kind kind;
  const char* name;
};
thread_local std::vector<Entry> stack;

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
ContextScope::~ContextScope() { stack.pop_back(); }
void ContextScope::push(Kind kind, const char* name) { stack.push_back({kind, name}); }

ContextReplay::ContextReplay(const std::string& module_path) {
  stack.push_back({ContextScope::Kind::module, module_path.c_str()});
}
ContextReplay::~ContextReplay() { stack.pop_back(); }

}  // namespace mtcki
