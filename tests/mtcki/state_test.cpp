// State: one visit saves and loads; what is missing or of another shape is named.
#include "mtcki/training/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "mtcki/training/budget.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"

namespace mtcki {
namespace {

struct Inner {
  int64_t count = 0;
  std::set<size_t> asked;
  Tensor maybe;
  void visit(State& s) {
    s("count", count);
    s("asked", asked);
    s.optional("maybe", maybe, {});
  }
};

struct Part {
  double rate = 0;
  bool under_way = false;
  Budget budget;
  Tensor weights = Tensor::zeros({2, 3});
  Inner first, second;
  void visit(State& s) {
    s("rate", rate);
    s("under_way", under_way);
    s("budget", budget);
    s("weights", weights);
    s("first", first);
    s("second", second);
    s.step(7);
  }
};

Part filled() {
  Part p;
  p.rate = 0.1;
  p.under_way = true;
  p.budget.kd_steps = 5;
  p.weights.copy_(rand({2, 3}, Rng{1, 1, 1}));
  p.first = {3, {1, 4}, rand({2}, Rng{2, 2, 2})};
  p.second.count = 9;
  return p;
}

TEST(State, SavesAndLoadsTheSame) {
  Part from = filled(), to;
  to.second.maybe = Tensor::zeros({4});  // becomes undefined again, as it was saved
  const void* address = to.weights.raw();
  StageState state;
  save(from, state);
  EXPECT_EQ(state.step, 7);
  load(to, state);
  EXPECT_EQ(to.rate, 0.1);
  EXPECT_TRUE(to.under_way);
  EXPECT_EQ(to.budget.kd_steps, 5);
  EXPECT_TRUE(identical(to.weights, from.weights));
  EXPECT_EQ(to.weights.raw(), address);  // captured steps know it
  EXPECT_EQ(to.first.asked, (std::set<size_t>{1, 4}));
  EXPECT_TRUE(identical(to.first.maybe, from.first.maybe));
  EXPECT_EQ(to.second.count, 9);
  EXPECT_FALSE(to.second.maybe.defined());
}

TEST(State, NamesWhatDoesNotFit) {
  Part from = filled(), to;
  const auto message = [&](const StageState& state) -> std::string {
    try {
      load(to, state);
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  StageState state;
  save(from, state);
  StageState lacks = state;
  lacks.meta.erase("first.count");
  EXPECT_THAT(message(lacks), ::testing::HasSubstr("\"first.count\""));
  from.weights = Tensor::zeros({3, 2});
  StageState other;
  save(from, other);
  EXPECT_THAT(message(other), ::testing::HasSubstr("\"weights\" is of shape"));
  std::erase_if(state.tensors, [](const auto& named) { return named.first == "weights"; });
  EXPECT_THAT(message(state), ::testing::HasSubstr("\"weights\" is missing"));
}

}  // namespace
}  // namespace mtcki
