#include "tensor/profiler_activity.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <unordered_map>

#include "tensor/cuda/runtime.h"
#include "tensor/device.h"

namespace mtcki::profiler {

namespace {

using cuda::Activity;

bool is_work(const Activity& a) {
  return a.kind == Activity::Kind::kernel || a.kind == Activity::Kind::copy ||
         a.kind == Activity::Kind::fill;
}

// What ran for one scope, once.
struct Execution {
  std::vector<const Activity*> work;
  double start_us() const {
    double first = work.front()->start_us;
    for (const Activity* a : work) first = std::min(first, a->start_us);
    return first;
  }
};

std::string label(const Activity& a) {
  return a.kind == Activity::Kind::kernel ? short_kernel_name(a.name) : a.name;
}

// "conv_a, conv_b x2"
std::string names(const std::vector<const Activity*>& work) {
  std::vector<std::pair<std::string, int>> list;
  for (const Activity* a : work) {
    const std::string name = label(*a);
    const auto it = std::find_if(list.begin(), list.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    if (it == list.end())
      list.emplace_back(name, 1);
    else
      ++it->second;
  }
  std::string text;
  for (const auto& [name, count] : list) {
    if (!text.empty()) text += ", ";
    text += name;
    if (count > 1) text += " x" + std::to_string(count);
  }
  return text;
}

void set_times(Event& e, const Execution& x, double origin) {
  e.start_us = x.start_us() - origin;
  e.stream = x.work.front()->stream;
  e.self_us = 0;
  for (const Activity* a : x.work) e.self_us += a->end_us - a->start_us;
  e.duration_us = e.self_us;
}

}  // namespace

std::string start_kernels() {
  std::string why = cuda::start_activity();
  if (why.empty()) listening.fetch_or(kActivity);
  return why;
}
void clear_kernels() { cuda::clear_activity(); }
std::vector<Activity> stop_kernels() {
  listening.fetch_and(~kActivity);
  return cuda::stop_activity();
}

std::string short_kernel_name(const std::string& name) {
  std::string text = name;
  if (name.rfind("_Z", 0) == 0) {  // other names may be those of a type, "x" of long long
    int status = 0;
    if (char* plain = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status)) {
      text = plain;
      std::free(plain);
    }
  }
  if (text.rfind("void ", 0) == 0) text.erase(0, 5);
  // An anonymous namespace has parentheses of its own.
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t at; (at = text.find(anonymous)) != std::string::npos;)
    text.erase(at, anonymous.size());
  return text.substr(0, text.find_first_of("<("));
}

std::vector<Event> attribute(const std::vector<Event>& scopes,
                             const std::vector<Activity>& records) {
  std::unordered_map<uint32_t, int64_t> op_of_call;
  std::unordered_map<uint64_t, int64_t> op_of_node;
  double origin = -1;
  for (const Activity& a : records) {
    if (a.kind == Activity::Kind::correlation) op_of_call[a.correlation] = a.op;
    if (a.kind == Activity::Kind::node) op_of_node[a.graph_node] = a.op;
    if (is_work(a) && (origin < 0 || a.start_us < origin)) origin = a.start_us;
  }
  std::unordered_map<int64_t, const Event*> scope_of;
  for (const Event& e : scopes) scope_of[e.id] = &e;

  // By scope and by the call that started it: an eager scope may make several calls, all of one
  // execution; the calls of a captured scope are launches of its graph, each one execution.
  std::map<std::pair<int64_t, uint32_t>, Execution> executions;
  std::vector<Event> out;
  for (const Activity& a : records) {
    if (!is_work(a)) continue;
    int64_t op = -1;
    bool replayed = false;
    if (const auto node = op_of_node.find(a.graph_node);
        a.graph_node != 0 && node != op_of_node.end()) {
      op = node->second;
      replayed = true;
    } else if (const auto call = op_of_call.find(a.correlation);
               a.graph_node == 0 && call != op_of_call.end()) {
      op = call->second;
    }
    if (scope_of.count(op)) {
      executions[{op, replayed ? a.correlation : 0}].work.push_back(&a);
      continue;
    }
    Event e;
    e.op = label(a);
    e.device = Device::cuda(std::max(0, cuda::current_device())).to_string();
    e.step = kAnyStep;
    e.bytes = a.kind == Activity::Kind::copy ? 2 * a.bytes : a.bytes;
    set_times(e, Execution{{&a}}, origin);
    out.push_back(std::move(e));
  }
  // Replays of one scope in the order of time.
  std::map<int64_t, std::vector<const Execution*>> by_scope;
  for (const auto& [key, execution] : executions) by_scope[key.first].push_back(&execution);
  for (auto& [id, list] : by_scope) {
    std::sort(list.begin(), list.end(),
              [](const Execution* a, const Execution* b) { return a->start_us() < b->start_us(); });
    const Event& scope = *scope_of.at(id);
    for (size_t n = 0; n < list.size(); ++n) {
      Event e = scope;
      if (scope.captured) {
        e.step = static_cast<int64_t>(n);
        e.host_us = 0;  // paid once, at the capture
      }
      e.captured = false;
      e.note = scope.note.empty() ? names(list[n]->work) : scope.note + ": " + names(list[n]->work);
      set_times(e, *list[n], origin);
      out.push_back(std::move(e));
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Event& a, const Event& b) { return a.start_us < b.start_us; });
  return out;
}

}  // namespace mtcki::profiler
