#include "tests/emulated/device/queues.h"

#include <algorithm>

#include "tensor/error.h"

namespace mtcki::cuda {

void Queues::add(int stream, QueueEntry entry) { at(stream).entries.push_back(std::move(entry)); }

size_t Queues::given(int stream) const {
  const Queue& q = queues_[static_cast<size_t>(stream)];
  return q.done + q.entries.size();
}

// The next entry, unless it waits for another stream that is not as far.
bool Queues::step(int stream, bool may_finish_others) {
  Queue& q = at(stream);
  if (q.entries.empty()) return false;
  const QueueEntry entry = q.entries.front();
  if (!entry.work && at(entry.other).done < entry.position) {
    if (!may_finish_others) return false;
    while (at(entry.other).done < entry.position) step(entry.other, true);
  }
  q.entries.pop_front();
  ++q.done;
  if (entry.work) (*entry.work)();
  return true;
}

void Queues::run_side_streams(bool first_one_first) {
  for (bool ran = true; ran;) {
    ran = false;
    for (int i = 1; i < kMostStreams; ++i)
      while (step(first_one_first ? i : kMostStreams - i, false)) ran = true;
  }
}

void Queues::finish(int stream, size_t position, StreamTimes times) {
  const bool early = times != StreamTimes::late;
  for (;;) {
    if (early) run_side_streams(times == StreamTimes::early_reversed);
    if (at(stream).done >= position) return;
    step(early ? 0 : stream, true);
  }
}

void Queues::finish_all(StreamTimes times) {
  for (int stream = 0; stream < kMostStreams; ++stream) finish(stream, given(stream), times);
}

Recording::Recording(int stream) : origin_(stream) {
  takes_part_[static_cast<size_t>(stream)] = true;
}

void Recording::give(int stream, QueueEntry entry) {
  given_.push_back({stream, std::move(entry)});
  ++count_[static_cast<size_t>(stream)];
}

void Recording::add(int stream, Work work) {
  if (!takes_part(stream))
    throw Error(str("capture: stream ", stream,
                    " was given work and waits for no stream of the capture: a GPU would do it at "
                    "once, and not in the graph"));
  give(stream, {std::move(work), 0, 0});
}

void Recording::wait(int stream, int other) {
  if (!takes_part(other))
    throw Error(str("capture: stream ", stream, " waits for stream ", other,
                    ", which has no part in the capture"));
  takes_part_[static_cast<size_t>(stream)] = true;
  give(stream, {nullptr, other, count_[static_cast<size_t>(other)]});
}

// From the last entry back: what the stream of begin() waits for, itself or through others.
void Recording::check_joined() const {
  std::array<size_t, kMostStreams> left = count_, reached{};
  reached[static_cast<size_t>(origin_)] = count_[static_cast<size_t>(origin_)];
  for (auto it = given_.rbegin(); it != given_.rend(); ++it) {
    const auto stream = static_cast<size_t>(it->stream);
    const size_t position = left[stream]--;
    if (!it->entry.work) {
      if (position > reached[stream]) continue;
      size_t& other = reached[static_cast<size_t>(it->entry.other)];
      other = std::max(other, it->entry.position);
    } else if (position > reached[stream]) {
      throw Error("end of a capture: nobody waits for a side stream");
    }
  }
}

void Recording::replay(StreamTimes times) const {
  Queues queues;
  for (const Given& g : given_) queues.add(g.stream, g.entry);
  queues.finish_all(times);
}

size_t Recording::works() const {
  return static_cast<size_t>(std::count_if(given_.begin(), given_.end(),
                                           [](const Given& g) { return g.entry.work != nullptr; }));
}

}  // namespace mtcki::cuda
