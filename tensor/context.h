// Where the program is: stage, module path. Errors and the profiler read it.
#pragma once

#include <string>

namespace mtcki {

// "distill/teacher[1]/layer2.0.conv1"; empty outside any scope. Thread-local.
std::string context_path();
// The outermost scope that was opened with kind stage, e.g. "synthesis/generator"; empty if none.
std::string context_stage();
// The module part of the path, e.g. "layer2.0.conv1".
std::string context_module();

class ContextScope {
 public:
  enum class Kind { stage, module };
  // `name` must outlive the scope (module names and literals do): nothing is copied.
  ContextScope(Kind kind, const std::string& name);
  ContextScope(Kind kind, const char* name);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  void push(Kind kind, const char* name);
};
struct StageScope : ContextScope {
  explicit StageScope(const char* name) : ContextScope(Kind::stage, name) {}
};

// The module path as text, kept by a graph node, so that its backward runs under the same path.
class ContextReplay {
 public:
  explicit ContextReplay(const std::string& module_path);  // must outlive the scope
  ~ContextReplay();
  ContextReplay(const ContextReplay&) = delete;
  ContextReplay& operator=(const ContextReplay&) = delete;
};

}  // namespace mtcki
