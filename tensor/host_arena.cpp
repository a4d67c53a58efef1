#include "tensor/host_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#endif

namespace mtcki {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRange = size_t{1} << 30;  // addresses only: pages come when they are written
constexpr size_t kPage = 4096;
// Between two blocks: AddressSanitizer sees what runs over an end, and blocks of a power of two do
// not all start in the same cache sets.
constexpr size_t kGap = 64;

// `size` bytes from the system, aligned for huge pages; null when it refuses.
char* map(size_t size) {
  void* data =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  char* aligned = static_cast<char*>(data) + (kHugePage - at % kHugePage) % kHugePage;
  madvise(aligned, size, MADV_HUGEPAGE);
  return aligned;
}

}  // namespace

void HostArena::insert(char* data, size_t size) {
  free_.emplace(data, size);
  free_bytes_ += size;
}

void HostArena::erase(Free::iterator block) {
  free_bytes_ -= block->second;
  free_.erase(block);
}

void* HostArena::take(size_t size) {
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [data, length] = *it;
    if (length < size + kGap) continue;
    erase(it);
    if (length > size + kGap) insert(data + size + kGap, length - size - kGap);
    ASAN_UNPOISON_MEMORY_REGION(data, size);
    return data;
  }
  return nullptr;
}

// Starts in the free block that ends at top_, if there is one.
void* HostArena::extend(size_t size) {
  const auto above = free_.lower_bound(top_);
  const auto last = above == free_.begin() ? free_.end() : std::prev(above);
  const bool joins = last != free_.end() && last->first + last->second == top_;
  char* data = joins ? last->first : top_;
  if (static_cast<size_t>(end_ - data) < size + kGap) {
    if (!reserve(size + kGap)) return nullptr;
    data = top_;
  } else if (joins) {
    erase(last);
  }
  top_ = data + size + kGap;
  ASAN_UNPOISON_MEMORY_REGION(data, size);
  return data;
}

void HostArena::give(void* block, size_t size) {
  char* data = static_cast<char*>(block);
  ASAN_POISON_MEMORY_REGION(data, size);
  size_t length = size + kGap;
  const auto next = free_.lower_bound(data);
  const auto before = next == free_.begin() ? free_.end() : std::prev(next);
  if (next != free_.end() && data + length == next->first) {
    length += next->second;
    erase(next);
  }
  if (before != free_.end() && before->first + before->second == data) {
    data = before->first;
    length += before->second;
    erase(before);
  }
  insert(data, length);
}

void HostArena::trim() {
  for (const auto& [data, length] : free_) {
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + length) / kPage * kPage;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

// What was left of the range before stays unused; no page of it was ever written.
bool HostArena::reserve(size_t size) {
  size_t length = std::max(size, kRange);
  char* data = map(length);
  if (!data && length > size) data = map(length = size);
  if (!data) return false;
  ASAN_POISON_MEMORY_REGION(data, length);
  top_ = data;
  end_ = data + length;
  return true;
}

}  // namespace mtcki
