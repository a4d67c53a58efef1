// Files that appear complete or not at all: written to a temporary sibling, synced, renamed over the
// target, and the folder synced (rename is atomic for names but not durable by itself).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mtcki::data {

class AtomicFile {
 public:
  // expected_bytes: only for the text of an error. DiskError when the sibling cannot be created, and
  // when `path` is there and not a regular file: no link is replaced, nor a device.
  explicit AtomicFile(const std::string& path, uint64_t expected_bytes = 0);
  ~AtomicFile();  // without commit(): removes the sibling, the target stays as it was
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Handles short writes and EINTR. DiskError: strerror, path, needed and free bytes.
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  [[noreturn]] void fail(const char* operation, int error);
  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t written_ = 0, expected_ = 0;
};

// AtomicFile in one call.
void write_file_atomic(const std::string& path, std::string_view content);

// A descriptor that appends to a regular file, which is created when missing; DiskError for anything
// else, links included.
int open_for_appending(const std::string& path);
// Building blocks for append-only files and for checkpoints. Each throws DiskError.
void write_all(int fd, const void* data, size_t bytes, const std::string& path);
void sync_directory(const std::string& path);
void rename_path(const std::string& from, const std::string& to);
void make_directories(const std::string& path);         // those that are missing
std::string parent_directory(const std::string& path);  // "." for a bare name
// Free for this user on the file system that holds `path` (or its nearest existing parent).
uint64_t free_bytes(const std::string& path);
// DiskError "cannot <operation> <path>: <strerror>", for want of room "(needed N bytes, F free)".
[[noreturn]] void throw_disk_error(const char* operation, const std::string& path, int error,
                                   uint64_t needed);

// For fault tests: called before every operation with its name (open write fsync close rename
// fsync-dir); a non-zero result is taken as that operation's errno. nullptr: none.
using IoHook = int (*)(const char* operation);
void set_io_hook(IoHook hook);

}  // namespace mtcki::data
