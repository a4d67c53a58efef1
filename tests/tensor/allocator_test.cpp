// The allocator's books: what was held at the peak and where it was taken, and limits.
#include "tensor/allocator.h"

#include <gtest/gtest.h>

#include <map>

#include "tensor/context.h"
#include "tensor/error.h"
#include "tensor/tensor.h"

namespace mtcki {
namespace {

TEST(Allocator, PeakByTheModuleThatTookIt) {
  const Tensor before = Tensor::empty({1 << 16});  // taken while nothing was noted
  enable_memory_tags(true);
  reset_peak_memory();
  const auto take = [](const char* module, int64_t kilobytes) {
    const ContextScope scope(ContextScope::Kind::module, module);
    return Tensor::empty({kilobytes * 256});
  };
  {
    const Tensor a = take("a", 128), b = take("b", 512);
    { const Tensor more = take("a", 256); }
  }
  const Tensor later = take("c", 64);  // below the peak
  const auto tags = peak_by_tag();
  enable_memory_tags(false);
  ASSERT_EQ(tags.size(), 2u);
  EXPECT_EQ(tags[0].first, "b");
  EXPECT_EQ(tags[0].second, size_t{512} << 10);
  EXPECT_EQ(tags[1].first, "a");
  EXPECT_EQ(tags[1].second, size_t{384} << 10);
  EXPECT_TRUE(peak_by_tag().empty());
}

TEST(Allocator, ALimitHoldsForBlocksThatAreKept) {
  { const Tensor kept = Tensor::empty({100}), large = Tensor::empty({1 << 20}); }
  set_memory_limit(memory_stats().in_use + 64);
  EXPECT_THROW(Tensor::empty({100}), OutOfMemoryError);
  EXPECT_THROW(Tensor::empty({1 << 20}), OutOfMemoryError);
  set_memory_limit(0);
}

}  // namespace
}  // namespace mtcki
