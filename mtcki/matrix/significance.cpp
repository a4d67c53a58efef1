#include "mtcki/matrix/significance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "tensor/error.h"

namespace mtcki {

namespace {
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
// Results are percentages of four decimals. What deviates less differs by rounding alone: one image
// of a million is as much.
constexpr double kRounding = 1.5e-4;
}  // namespace

double mean(const std::vector<double>& values) {
  if (values.empty()) return kNone;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return kNone;
  const double m = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - m) * (v - m);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double student_t_two_sided(double t, int64_t degrees) {
  if (degrees < 1) throw Error("student_t_two_sided: degrees of freedom must be 1 or more");
  const double theta = std::atan(std::abs(t) / std::sqrt(static_cast<double>(degrees)));
  const double c = std::cos(theta), s = std::sin(theta);
  // Sum of a_k cos^k, k = 0, 2, 4... for an even number and 1, 3, 5... for an odd one.
  const bool odd = degrees % 2 == 1;
  double sum = 0, term = odd ? c : 1.0;
  for (int64_t k = odd ? 1 : 0; k <= degrees - 2; k += 2) {
    sum += term;
    term *= c * c * static_cast<double>(k + 1) / static_cast<double>(k + 2);
  }
  const double within = odd ? 2 / std::numbers::pi * (theta + s * sum) : s * sum;
  return std::clamp(1 - within, 0.0, 1.0);
}

PairedTest paired_t_test(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) throw Error("paired_t_test: two lists of different length");
  std::vector<double> d;
  for (size_t i = 0; i < a.size(); ++i) d.push_back(a[i] - b[i]);
  PairedTest out{mean(d), kNone, std::ssize(d)};
  if (d.size() < 2) return out;
  const double s = deviation(d);
  if (s > kRounding)
    out.p = student_t_two_sided(out.difference / (s / std::sqrt(static_cast<double>(d.size()))),
                                out.pairs - 1);
  else if (std::abs(out.difference) <= kRounding)
    out.p = 1;
  return out;
}

}  // namespace mtcki
