#include "data/formats/tfevents.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/protobuf.h"

namespace mtcki::data {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event: 1 wall_time, 2 step, 5 summary.
std::string summary_event(double wall, int64_t step, const ProtoWriter& summary) {
  ProtoWriter event;
  event.real64(1, wall);
  if (step != 0)
    event.integer(2, step);  // zero is the default and is left out, as the reference does
  return event.message(5, summary).bytes();
}

}  // namespace

std::string tf_record(const std::string& message) {
  std::string out;
  const auto put = [&out](uint64_t v, int n) {
    for (int i = 0; i < n; ++i) out += static_cast<char>(v >> (8 * i) & 0xff);
  };
  put(message.size(), 8);
  put(masked_crc32c(out.data(), 8), 4);
  out += message;
  put(masked_crc32c(message.data(), message.size()), 4);
  return out;
}

std::string event_file_version(double wall) {
  return ProtoWriter().real64(1, wall).text(3, "brain.Event:2").bytes();
}

std::string event_scalars(double wall, int64_t step,
                          const std::vector<std::pair<std::string, double>>& values) {
  ProtoWriter summary;
  for (const auto& [tag, value] : values)
    summary.message(1, ProtoWriter().text(1, tag).real32(2, static_cast<float>(value)));
  return summary_event(wall, step, summary);
}

std::string event_session_start(double wall, int64_t step) {
  return ProtoWriter()
      .real64(1, wall)
      .integer(2, step)
      .message(7, ProtoWriter().integer(1, 1))
      .bytes();
}

EventWriter::EventWriter(const std::string& dir) {
  static std::atomic<int> counter{0};
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  make_directories(dir);
  char time[32];
  std::snprintf(time, sizeof time, "%010lld", static_cast<long long>(now()));
  path_ = str(dir, "/events.out.tfevents.", time, ".", host, ".", ::getpid(), ".",
              counter.fetch_add(1));
  fd_ = open_for_appending(path_);
  try {
    add(event_file_version(now()));
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

EventWriter::~EventWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void EventWriter::add(const std::string& message) {
  const std::string record = tf_record(message);
  write_all(fd_, record.data(), record.size(), path_);
}

void EventWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  add(event_scalars(now(), step, values));
}

void EventWriter::image_png(const std::string& tag, int64_t step, const std::string& png,
                            int64_t height, int64_t width, int64_t channels) {
  ProtoWriter picture, value;
  picture.integer(1, height).integer(2, width).integer(3, channels).text(4, png);
  value.text(1, tag).message(4, picture);
  add(summary_event(now(), step, ProtoWriter().message(1, value)));
}

void EventWriter::session_start(int64_t step) { add(event_session_start(now(), step)); }

}  // namespace mtcki::data
