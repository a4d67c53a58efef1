#include "data/formats/tfevents.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/image_file.h"
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

// Value: 1 tag, 9 metadata {1 plugin_data {1 plugin_name, 2 content}}.
ProtoWriter plugin_value(const std::string& tag, const std::string& plugin,
                         const ProtoWriter& content) {
  ProtoWriter data, metadata, value;
  data.text(1, plugin);
  if (!content.bytes().empty()) data.message(2, content);
  metadata.message(1, data);
  value.text(1, tag).message(9, metadata);
  return value;
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

std::string event_scalar(double wall, int64_t step, const std::string& tag, double value) {
  ProtoWriter v;
  v.text(1, tag).real32(2, static_cast<float>(value));
  return summary_event(wall, step, ProtoWriter().message(1, v));
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

void EventWriter::scalar(const std::string& tag, int64_t step, double value) {
  add(event_scalar(now(), step, tag, value));
}

void EventWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  ProtoWriter summary;
  for (const auto& [tag, value] : values)
    summary.message(1, ProtoWriter().text(1, tag).real32(2, static_cast<float>(value)));
  add(summary_event(now(), step, summary));
}

void EventWriter::image(const std::string& tag, int64_t step, const Tensor& image) {
  image_png(tag, step, encode_png(image), image.size(1), image.size(2), image.size(0));
}

void EventWriter::image_png(const std::string& tag, int64_t step, const std::string& png,
                            int64_t height, int64_t width, int64_t channels) {
  ProtoWriter picture, value;
  picture.integer(1, height).integer(2, width).integer(3, channels).text(4, png);
  value.text(1, tag).message(4, picture);
  add(summary_event(now(), step, ProtoWriter().message(1, value)));
}

void EventWriter::text(const std::string& tag, int64_t step, const std::string& markdown) {
  ProtoWriter value = plugin_value(tag + "/text_summary", "text", {});
  ProtoWriter shape, tensor;
  shape.message(2, ProtoWriter().integer(1, 1));
  tensor.integer(1, 7).message(2, shape).text(8, markdown);  // DT_STRING [1]
  value.message(8, tensor);
  add(summary_event(now(), step, ProtoWriter().message(1, value)));
}

void EventWriter::hparams(const std::vector<HParam>& parameters,
                          const std::vector<std::string>& metric_tags, const std::string& group) {
  ProtoWriter experiment, start;
  for (const HParam& p : parameters) {
    experiment.message(4, ProtoWriter().text(1, p.name).integer(4, p.is_number ? 3 : 1));
    ProtoWriter value;
    if (p.is_number) {
      value.real64(2, p.number);
    } else {
      value.text(3, p.text);
    }
    start.message(1, ProtoWriter().text(1, p.name).message(2, value));
  }
  for (const std::string& tag : metric_tags)
    experiment.message(5, ProtoWriter().message(1, ProtoWriter().text(2, tag)));
  start.text(4, group).real64(5, now());
  // HParamsPluginData: 1 version = 0 (left out), 2 experiment, 3 session_start_info.
  ProtoWriter summary;
  for (const auto& [tag, content] :
       {std::pair<std::string, ProtoWriter>{"_hparams_/experiment",
                                            ProtoWriter().message(2, experiment)},
        {"_hparams_/session_start_info", ProtoWriter().message(3, start)}})
    summary.message(1, plugin_value(tag, "hparams", content));
  add(summary_event(now(), 0, summary));
}

void EventWriter::hparams_end(bool success) {
  ProtoWriter end;
  end.integer(1, success ? 1 : 2).real64(2, now());
  add(summary_event(now(), 0,
                    ProtoWriter().message(1, plugin_value("_hparams_/session_end_info", "hparams",
                                                          ProtoWriter().message(4, end)))));
}

void EventWriter::session_start(int64_t step) { add(event_session_start(now(), step)); }

void EventWriter::flush() { sync_file(fd_, path_); }

}  // namespace mtcki::data
