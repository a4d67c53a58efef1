// Random numbers: the generator against published vectors, and how draws depend on their place.
#include "tensor/rng.h"

#include <gtest/gtest.h>

#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

using Words = std::array<uint32_t, 4>;

// The known-answer vectors of Random123 (kat_vectors, philox4x32 10).
TEST(Rng, PhiloxVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, AnElementDependsOnItsPlaceAlone) {
  const Rng rng{7, rng_stream("test"), 3};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor few = rand({10}, rng, dtype), many = rand({2, 501}, rng, dtype);
    EXPECT_TRUE(identical(few, many.reshape({1002}).slice(0, 10)));
  }
  const auto uniform = rand({4}, rng, DType::f64).to_vector<double>();
  EXPECT_EQ(uniform[0], rng.uniform(0));
  EXPECT_EQ(uniform[2], rng.uniform(1));
  const auto whole = randint(0, 100, {4}, rng).to_vector<int64_t>();
  EXPECT_EQ(whole[3], static_cast<int64_t>(rng.below(100, 3)));
}

}  // namespace
}  // namespace mtcki
