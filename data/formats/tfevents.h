// TensorBoard event files: TFRecords of hand-written protocol buffers, append-only.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mtcki::data {

// Messages, without a file: for tests. wall: seconds since 1970.
std::string tf_record(const std::string& message);  // length, masked CRC-32C of both parts
std::string event_file_version(double wall);
std::string event_scalars(double wall, int64_t step,
                          const std::vector<std::pair<std::string, double>>& values);
std::string event_session_start(double wall, int64_t step);

class EventWriter {
 public:
  // Opens DIR/events.out.tfevents.<time>.<host>.<pid>.<uid>, always a new file: a crash may have left the
  // previous one with a torn tail. DiskError.
  explicit EventWriter(const std::string& dir);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // Each is one write(). DiskError.
  void scalars(int64_t step,  // NaN and infinity are legal
               const std::vector<std::pair<std::string, double>>& values);
  void image_png(const std::string& tag, int64_t step, const std::string& png, int64_t height,
                 int64_t width, int64_t channels);
  // Points of earlier files with a step >= this are dropped by TensorBoard: call on resume.
  void session_start(int64_t step);
  const std::string& path() const { return path_; }

 private:
  void add(const std::string& message);
  std::string path_;
  int fd_ = -1;
};

}  // namespace mtcki::data
