// Internal: large blocks of host memory, cut from one range of addresses.
//
// A freed block becomes one with its free neighbours, and serves blocks of any size. So what the
// process holds stays near the most that was ever in use. (Lists by size class hold the sum of the
// most of each class: backward frees the large activations of early layers last, when the small
// ones of late layers lie idle.) The lowest free place that is large enough is taken, which keeps
// the end free.
#pragma once

#include <cstddef>
#include <map>

namespace mtcki {

// Sizes and addresses are multiples of 64. Not thread-safe. Addresses are never given back: an
// arena lives as long as the process.
class HostArena {
 public:
  // A block that was in use before; null when none is large enough.
  void* take(size_t size);
  // A block that ends where nothing was in use before; null when the system refuses.
  void* extend(size_t size);
  void give(void* data, size_t size);
  size_t free_bytes() const { return free_bytes_; }
  // Returns the pages of the free blocks to the system; their addresses stay free.
  void trim();

 private:
  using Free = std::map<char*, size_t>;  // by address; no two blocks touch
  bool reserve(size_t size);
  void insert(char* data, size_t size);
  void erase(Free::iterator block);

  Free free_;
  size_t free_bytes_ = 0;
  char *top_ = nullptr, *end_ = nullptr;  // [top_, end_) was never used
};

}  // namespace mtcki
