// The history ring: empty, partly filled, exactly full, wrapped, any batch size, bf16.
#include "mtcki/losses/memory_bank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

// Rows whose two values are `first + i` (local) and its negative (global).
void add_rows(MemoryBank& bank, int first, int count) {
  std::vector<float> local, global;
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < 2; ++c) {
      local.push_back(static_cast<float>(first + i));
      global.push_back(-static_cast<float>(first + i));
    }
  bank.add(Tensor::from(local, {count, 2}), Tensor::from(global, {count, 2}));
}

std::set<int> content(const MemoryBank& bank) {
  const auto draw = bank.draw(1000, Rng{1, 2, 3});
  std::set<int> out;
  if (!draw.local.defined()) return out;
  const auto l = draw.local.to_vector<float>(), g = draw.global.to_vector<float>();
  for (size_t i = 0; i < l.size(); i += 2) {
    EXPECT_EQ(l[i], -g[i]);  // pairs stay together
    EXPECT_EQ(l[i], l[i + 1]);
    out.insert(static_cast<int>(l[i]));
  }
  EXPECT_EQ(out.size(), l.size() / 2);  // without replacement
  return out;
}

TEST(MemoryBank, Empty) {
  const MemoryBank bank(10, 2, DType::f32);
  EXPECT_FALSE(bank.draw(4, Rng{}).local.defined());
  EXPECT_EQ(bank.filled(), 0);
}

TEST(MemoryBank, PartlyFilledDrawsOnlyWhatIsThere) {
  MemoryBank bank(10, 2, DType::f32);
  add_rows(bank, 1, 3);
  EXPECT_EQ(content(bank), (std::set<int>{1, 2, 3}));
  EXPECT_EQ(bank.draw(2, Rng{}).local.size(0), 2);
}

TEST(MemoryBank, ExactlyFullKeepsAllRows) {
  MemoryBank bank(6, 2, DType::f32);
  add_rows(bank, 0, 3);
  add_rows(bank, 3, 3);
  EXPECT_EQ(bank.filled(), 6);
  EXPECT_EQ(bank.position(), 0);
  EXPECT_EQ(content(bank), (std::set<int>{0, 1, 2, 3, 4, 5}));
}

TEST(MemoryBank, WrapsWithABatchThatDoesNotDivideIt) {
  MemoryBank bank(5, 2, DType::f32);
  for (int i = 0; i < 4; ++i) add_rows(bank, 3 * i, 3);
  EXPECT_EQ(content(bank), (std::set<int>{7, 8, 9, 10, 11}));
  EXPECT_EQ(bank.position(), 12 % 5);
}

TEST(MemoryBank, BatchLargerThanTheRing) {
  MemoryBank bank(4, 2, DType::f32);
  add_rows(bank, 0, 1);
  add_rows(bank, 1, 10);
  EXPECT_EQ(content(bank), (std::set<int>{7, 8, 9, 10}));
  EXPECT_EQ(bank.position(), 11 % 4);
}

TEST(MemoryBank, DrawIsAFunctionOfTheKey) {
  MemoryBank bank(50, 2, DType::f32);
  add_rows(bank, 0, 50);
  const Rng key{7, 8, 9};
  EXPECT_TRUE(identical(bank.draw(20, key).local, bank.draw(20, key).local));
  EXPECT_FALSE(identical(bank.draw(20, key).local, bank.draw(20, key.at(10)).local));
}

TEST(MemoryBank, HalfPrecisionRows) {
  MemoryBank bank(4, 2, DType::bf16);
  add_rows(bank, 1, 4);
  EXPECT_EQ(content(bank), (std::set<int>{1, 2, 3, 4}));  // small integers are exact in bf16
  EXPECT_EQ(bank.draw(2, Rng{}).local.dtype(), DType::f32);
}

TEST(MemoryBank, RestartContinuesARing) {
  MemoryBank whole(5, 2, DType::f32), resumed(5, 2, DType::f32);
  for (int i = 0; i < 4; ++i) add_rows(whole, 3 * i, 3);
  resumed.restart(6);  // the last two batches cover the ring
  add_rows(resumed, 6, 3);
  add_rows(resumed, 9, 3);
  EXPECT_EQ(whole.position(), resumed.position());
  EXPECT_TRUE(identical(whole.draw(5, Rng{}).local, resumed.draw(5, Rng{}).local));
}

TEST(MemoryBank, RefusesRowsOfAnotherWidth) {
  MemoryBank bank(5, 2, DType::f32);
  EXPECT_THROW(bank.add(Tensor::zeros({1, 3}), Tensor::zeros({1, 3})), ShapeError);
}

}  // namespace
}  // namespace mtcki
