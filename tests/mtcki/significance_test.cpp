#include "mtcki/matrix/significance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tensor/error.h"

namespace mtcki::significance_test {
namespace {

// Reference: the regularised incomplete beta function of mpmath at 30 digits.
TEST(Significance, StudentsDistribution) {
  const struct {
    double t;
    int64_t degrees;
    double p;
  } rows[] = {{1, 1, 0.5},
              {3.5, 1, 0.1771710655658095},
              {0.5, 2, 0.66666666666666667},
              {4.302652729911275, 2, 0.049999999996516631},
              {2.5, 3, 0.087706647008065547},
              {-2.776445105, 4, 0.050000000010119479},
              {10, 4, 0.00056200362271599116},
              {1.2, 7, 0.26917193682720646},
              {2.2, 10, 0.05244106844935315},
              {0.1, 29, 0.92103244448737375},
              {6, 30, 1.3942768767204743e-6}};
  for (const auto& row : rows)
    EXPECT_NEAR(student_t_two_sided(row.t, row.degrees), row.p, 2e-15)
        << row.t << " " << row.degrees;
  EXPECT_EQ(student_t_two_sided(0, 5), 1);
  EXPECT_EQ(student_t_two_sided(INFINITY, 5), 0);
  EXPECT_THROW(student_t_two_sided(1, 0), Error);
}

TEST(Significance, PairsByHand) {
  // Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3), two degrees:
  // p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14).
  const PairedTest test = paired_t_test({11, 22, 33}, {10, 20, 30});
  EXPECT_DOUBLE_EQ(test.difference, 2);
  EXPECT_NEAR(test.p, 1 - std::sqrt(12.0 / 14.0), 1e-15);
  EXPECT_EQ(test.pairs, 3);
  EXPECT_TRUE(std::isnan(paired_t_test({2}, {1}).p));
  EXPECT_TRUE(std::isnan(paired_t_test({2, 3}, {1, 2}).p)) << "no deviation, no test";
  EXPECT_EQ(paired_t_test({2, 3}, {2, 3}).p, 1);
  // The same where only rounding tells the differences apart: in f64, and to four decimals.
  EXPECT_TRUE(std::isnan(paired_t_test({88.56, 88.61}, {88.46, 88.51}).p));
  EXPECT_TRUE(std::isnan(paired_t_test({11.6667, 13.3333, 15}, {10, 11.6667, 13.3333}).p));
  EXPECT_EQ(paired_t_test({0.3, 0.7}, {0.1 + 0.2, 0.7}).p, 1);
  EXPECT_THROW(paired_t_test({1, 2}, {1}), Error);
}

TEST(Significance, MeanAndDeviation) {
  EXPECT_DOUBLE_EQ(mean(std::vector<double>{1, 2, 6}), 3);
  EXPECT_DOUBLE_EQ(deviation({1, 2, 6}), std::sqrt(7.0));
  EXPECT_TRUE(std::isnan(deviation({1})));
  EXPECT_TRUE(std::isnan(mean(std::vector<double>{})));
}

}  // namespace
}  // namespace mtcki::significance_test
