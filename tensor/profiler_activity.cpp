#include "tensor/profiler_activity.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
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
    const auto it =
        std::ranges::find_if(list, [&](const auto& entry) { return entry.first == name; });
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

// Activity clock to the clock of the result.
struct Clock {
  double offset = 0;
  explicit Clock(const std::vector<Activity>& records) {
    double first = -1;
    for (const Activity& a : records) {
      if (a.kind == Activity::Kind::clock) {
        offset = a.end_us - a.start_us;
        return;
      }
      if (is_work(a) && (first < 0 || a.start_us < first)) first = a.start_us;
    }
    offset = -first;
  }
};

// What ran at the same time has equal parts of it.
std::unordered_map<const Activity*, double> exclusive_times(const std::vector<Activity>& records) {
  struct Point {
    double us;
    bool start;
    const Activity* work;
  };
  std::vector<Point> points;
  for (const Activity& a : records)
    if (is_work(a)) {
      points.push_back({a.start_us, true, &a});
      points.push_back({a.end_us, false, &a});
    }
  std::ranges::stable_sort(points, {}, &Point::us);
  std::unordered_map<const Activity*, double> out;
  std::vector<const Activity*> running;
  double before = 0;
  for (const Point& p : points) {
    for (const Activity* a : running)
      out[a] += (p.us - before) / static_cast<double>(running.size());
    before = p.us;
    if (p.start)
      running.push_back(p.work);
    else
      running.erase(std::ranges::find(running, p.work));
  }
  return out;
}

// Work by scope, and what no scope started.
struct Grouping {
  // By scope and by the call that started it: an eager scope may make several calls, all of one
  // execution; the calls of a captured scope are launches of its graph, each one execution.
  std::map<std::pair<int64_t, uint32_t>, Execution> executions;
  std::vector<const Activity*> free;
  std::unordered_map<int64_t, const Event*> scope_of;

  Grouping(const std::vector<Event>& scopes, const std::vector<Activity>& records) {
    std::unordered_map<uint32_t, int64_t> op_of_call;
    std::unordered_map<uint64_t, int64_t> op_of_node;
    for (const Activity& a : records) {
      if (a.kind == Activity::Kind::correlation) op_of_call[a.correlation] = a.op;
      if (a.kind == Activity::Kind::node) op_of_node[a.graph_node] = a.op;
    }
    for (const Event& e : scopes) scope_of[e.id] = &e;
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
      if (scope_of.count(op))
        executions[{op, replayed ? a.correlation : 0}].work.push_back(&a);
      else
        free.push_back(&a);
    }
  }
};

// The first lane of a stream that is free at `start`.
class Lanes {
 public:
  int take(int stream, double start, double end) {
    std::vector<double>& ends = ends_[stream];
    size_t lane = 0;
    while (lane < ends.size() && ends[lane] > start) ++lane;
    if (lane == ends.size()) ends.push_back(0);
    ends[lane] = end;
    return static_cast<int>(lane);
  }

 private:
  std::map<int, std::vector<double>> ends_;
};

Slice slice(const Activity& a, const Clock& clock) {
  return {.kind = a.kind == Activity::Kind::call ? Slice::Kind::call : Slice::Kind::work,
          .name = label(a),
          .shape = a.shape,
          .stream = a.stream,
          .start_us = a.start_us + clock.offset,
          .us = a.end_us - a.start_us};
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
  Activity clock;
  clock.kind = Activity::Kind::clock;
  clock.start_us = cuda::activity_now_us();
  clock.end_us = host_now_us();
  std::vector<Activity> records = cuda::stop_activity();
  if (!records.empty()) records.push_back(clock);
  return records;
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

std::vector<Event> attribute(const std::vector<Event>& scopes, const std::vector<Activity>& records,
                             std::vector<Share>* shares) {
  const Grouping groups(scopes, records);
  const Clock clock(records);
  const std::unordered_map<const Activity*, double> exclusive = exclusive_times(records);
  std::vector<std::pair<Event, Share>> out;
  const auto add = [&](Event e, const Execution& x) {
    Share share;
    e.start_us = x.start_us() + clock.offset;
    e.stream = x.work.front()->stream;
    e.self_us = e.duration_us = 0;
    for (const Activity* a : x.work) {
      e.self_us += a->end_us - a->start_us;
      e.duration_us = std::max(e.duration_us, a->end_us + clock.offset - e.start_us);
      share.exclusive_us += exclusive.at(a);
      ++share.launches;
    }
    out.emplace_back(std::move(e), share);
  };
  for (const Activity* a : groups.free) {
    Event e{.op = label(*a),
            .device = Device::cuda(std::max(0, cuda::current_device())).to_string(),
            .step = kAnyStep,
            .bytes = a->kind == Activity::Kind::copy ? 2 * a->bytes : a->bytes};
    add(std::move(e), Execution{{a}});
  }
  // Replays of one scope in the order of time.
  std::map<int64_t, std::vector<const Execution*>> by_scope;
  for (const auto& [key, execution] : groups.executions) by_scope[key.first].push_back(&execution);
  for (auto& [id, list] : by_scope) {
    std::ranges::sort(
        list, [](const Execution* a, const Execution* b) { return a->start_us() < b->start_us(); });
    const Event& scope = *groups.scope_of.at(id);
    for (size_t n = 0; n < list.size(); ++n) {
      Event e = scope;
      if (scope.captured) {
        e.step = static_cast<int64_t>(n);
        e.host_us = 0;  // paid once, at the capture
      }
      e.captured = false;
      e.note = scope.note.empty() ? names(list[n]->work) : scope.note + ": " + names(list[n]->work);
      add(std::move(e), *list[n]);
    }
  }
  std::ranges::stable_sort(
      out, [](const auto& a, const auto& b) { return a.first.start_us < b.first.start_us; });
  std::vector<Event> events;
  for (auto& [event, share] : out) {
    events.push_back(std::move(event));
    if (shares) shares->push_back(share);
  }
  return events;
}

std::vector<Slice> timeline(const std::vector<Event>& scopes,
                            const std::vector<Activity>& records) {
  const Grouping groups(scopes, records);
  const Clock clock(records);
  // An op and its work on one stream, or one piece of work alone.
  struct Bar {
    const Event* scope;
    std::vector<const Activity*> work;
    double start() const { return work.front()->start_us; }
  };
  const auto earlier = [](const Activity* a, const Activity* b) {
    return a->start_us < b->start_us;
  };
  std::vector<Bar> bars;
  for (const Activity* a : groups.free) bars.push_back({nullptr, {a}});
  for (const auto& [key, execution] : groups.executions) {
    std::map<int, std::vector<const Activity*>> by_stream;
    for (const Activity* a : execution.work) by_stream[a->stream].push_back(a);
    for (auto& [stream, work] : by_stream) {
      std::ranges::sort(work, earlier);
      bars.push_back({groups.scope_of.at(key.first), work});
    }
  }
  std::ranges::stable_sort(bars, {}, &Bar::start);
  std::vector<Slice> out;
  std::set<uint32_t> calls, started;  // recorded ones; those of them that have work
  for (const Activity& a : records)
    if (a.kind == Activity::Kind::call) calls.insert(a.correlation);
  Lanes lanes;
  for (const Bar& bar : bars) {
    double end = bar.start();
    for (const Activity* a : bar.work) end = std::max(end, a->end_us);
    const int lane = lanes.take(bar.work.front()->stream, bar.start(), end);
    if (bar.scope) {
      Slice op;
      op.kind = Slice::Kind::op;
      op.name = bar.scope->op;
      op.module = bar.scope->module;
      op.backward = bar.scope->backward;
      op.stream = bar.work.front()->stream;
      op.lane = lane;
      op.start_us = bar.start() + clock.offset;
      op.us = end - bar.start();
      out.push_back(op);
    }
    double drawn = bar.start();
    for (const Activity* a : bar.work) {
      Slice s = slice(*a, clock);
      s.lane = lane;
      if (bar.scope) s.module = bar.scope->module, s.backward = bar.scope->backward;
      // One that starts while the one before it in its op still runs is drawn from there on.
      const double hidden = std::min(s.us, std::max(0.0, drawn - a->start_us));
      s.start_us += hidden;
      s.us -= hidden;
      drawn = std::max(drawn, a->end_us);
      if (calls.count(a->correlation) && started.insert(a->correlation).second)
        s.launch = a->correlation;
      out.push_back(std::move(s));
    }
  }
  for (const Activity& a : records) {
    if (a.kind != Activity::Kind::call || !started.count(a.correlation)) continue;
    Slice s = slice(a, clock);
    s.launch = a.correlation;
    out.push_back(std::move(s));
  }
  return out;
}

}  // namespace mtcki::profiler
