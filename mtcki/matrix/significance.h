// Whether two methods differ: the paired t-test over seeds.
#pragma once

#include <cstdint>
#include <vector>

namespace mtcki {

double mean(const std::vector<double>& values);       // NaN without values
double deviation(const std::vector<double>& values);  // of a sample (n - 1); NaN for fewer than two

// P(|T| >= |t|) of Student's distribution with an integer number of degrees of freedom (>= 1), by
// its finite sums: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
double student_t_two_sided(double t, int64_t degrees);

// Of pairs (a_i, b_i), one for each seed that both have: mean difference d, and the two-sided p of
// t = d / (s / sqrt(n)), s the deviation of the differences. NaN for fewer than two pairs, or when
// all differences are the same number other than 0 (rounding, or a copy: no test can tell).
struct PairedTest {
  double difference = 0, p = 0;
  int64_t pairs = 0;
};
PairedTest paired_t_test(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace mtcki
