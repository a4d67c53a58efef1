// The arena of large host blocks: neighbours join, no two blocks overlap, the end stays free.
#include "tensor/host_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/rng.h"

namespace mtcki {
namespace {

constexpr size_t kBlock = size_t{1} << 20;

TEST(HostArena, FreedNeighboursServeALargerBlock) {
  HostArena arena;
  EXPECT_EQ(arena.take(kBlock), nullptr) << "nothing was in use yet";
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(arena.extend(kBlock));
  EXPECT_EQ(arena.free_bytes(), 0u);
  // In an order that joins with the block below, with the one above, and with both.
  arena.give(blocks[0], kBlock);
  arena.give(blocks[2], kBlock);
  EXPECT_EQ(arena.take(2 * kBlock), nullptr);
  arena.give(blocks[1], kBlock);
  EXPECT_GE(arena.free_bytes(), 3 * kBlock);
  EXPECT_EQ(arena.take(3 * kBlock), blocks[0]);
  EXPECT_LT(arena.free_bytes(), kBlock / 2);
}

TEST(HostArena, ALargeBlockIsCutAndTheLowestPlaceTaken) {
  HostArena arena;
  void* const low = arena.extend(4 * kBlock);
  void* const used = arena.extend(kBlock);
  void* const high = arena.extend(4 * kBlock);
  void* const end = arena.extend(kBlock);
  arena.give(high, 4 * kBlock);
  arena.give(low, 4 * kBlock);
  EXPECT_EQ(arena.take(kBlock), low);
  void* const second = arena.take(kBlock);
  EXPECT_GT(second, low);
  EXPECT_LT(second, used);
  EXPECT_EQ(arena.take(4 * kBlock), high) << "the rest of the first is too small";
  EXPECT_LT(high, end);
}

TEST(HostArena, TheEndGrowsFromTheFreeBlockThatLiesThere) {
  HostArena arena;
  void* const first = arena.extend(kBlock);
  void* const last = arena.extend(kBlock);
  arena.give(last, kBlock);
  EXPECT_EQ(arena.extend(3 * kBlock), last);
  EXPECT_EQ(arena.free_bytes(), 0u);
  // More than one range of addresses holds: another one begins.
  void* const huge = arena.extend(size_t{3} << 30);
  ASSERT_NE(huge, nullptr);
  EXPECT_NE(huge, first);
  EXPECT_EQ(arena.extend(size_t{1} << 60), nullptr);
}

TEST(HostArena, BlocksNeverOverlapAndTrimmingKeepsThoseInUse) {
  HostArena arena;
  const Rng rng{1, rng_stream("arena")};
  const std::vector<int64_t> draws = randint(0, 1 << 20, {2000}, rng).to_vector<int64_t>();
  std::map<char*, size_t> held;  // every block is filled with a byte of its own
  const auto byte_of = [](const char* data) {
    return static_cast<char>(reinterpret_cast<uintptr_t>(data) >> 6);
  };
  size_t most = 0, in_use = 0, range = 0;
  for (size_t i = 0; i + 1 < draws.size(); i += 2) {
    if (!held.empty() && draws[i] % 2 == 0) {
      auto it = held.lower_bound(held.begin()->first + draws[i + 1] * 16);
      if (it == held.end()) it = held.begin();
      const auto [data, size] = *it;
      for (const size_t at : {size_t{0}, size / 2, size - 1})
        ASSERT_EQ(data[at], byte_of(data)) << "another block wrote here";
      arena.give(data, size);
      in_use -= size;
      held.erase(it);
    } else {
      const size_t size = static_cast<size_t>(draws[i + 1] / 64 + 1) * 64;
      void* block = arena.take(size);
      if (!block) block = arena.extend(size);
      ASSERT_NE(block, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
      char* data = static_cast<char*>(block);
      std::memset(data, byte_of(data), size);
      held.emplace(data, size);
      in_use += size;
      most = std::max(most, in_use);
      range = std::max(range, static_cast<size_t>(data - held.begin()->first) + size);
    }
    if (i % 500 == 0) arena.trim();
  }
  for (const auto& [data, size] : held) EXPECT_EQ(data[size - 1], byte_of(data));
  EXPECT_LT(range, 2 * most) << "holes pile up";
}

// The point of it: blocks of one size, freed, serve another size.
TEST(HostMemory, WhatIsHeldStaysNearThePeakWhateverTheSizes) {
  const auto held = [] { return memory_stats().in_use + memory_stats().cached; };
  const size_t before = held();
  for (const size_t pieces : {1, 3, 7, 16, 5, 2}) {
    std::vector<void*> blocks;
    const size_t size = 32 * kBlock / pieces;
    for (size_t i = 0; i < pieces; ++i) blocks.push_back(allocate(size, Device{}));
    for (void* block : blocks) deallocate(block, size, Device{});
  }
  EXPECT_LE(held(), before + 33 * kBlock);
  const uint64_t calls = memory_stats().system_allocations;
  deallocate(allocate(20 * kBlock, Device{}), 20 * kBlock, Device{});
  EXPECT_EQ(memory_stats().system_allocations, calls);
}

}  // namespace
}  // namespace mtcki
