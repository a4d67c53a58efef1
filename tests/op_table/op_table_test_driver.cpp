#include <cctype>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tests/op_table/op_table_driver.h"

namespace mtcki::op_table {

const std::vector<Row>& rows() {
  static const std::vector<Row> all = all_rows();
  return all;
}

std::vector<Arrangement> arrangements(const Row& row, const Case& c, Device device) {
  const size_t n = c.inputs.size();
  std::vector<Arrangement> all{{"plain", std::vector<Layout>(n, Layout::plain)}};
  const auto with = [&](const char* name, Layout layout, size_t most) {
    std::vector<Layout> layouts(n, Layout::plain);
    size_t changed = 0;
    for (size_t i = 0; i < n && changed < most; ++i) {
      const Tensor& t = c.inputs[i];
      if (!t.defined() || t.rank() != 4 || row.weights.count(i)) continue;
      if (layout == Layout::blocked && t.size(1) % kChannelBlock != 0) continue;
      layouts[i] = layout;
      ++changed;
    }
    if (changed > 0) all.push_back({name, layouts});
    return changed;
  };
  with("channels_last", Layout::channels_last, n);
  if (device.is_cpu() && with("blocked", Layout::blocked, n) > 1)
    with("first_blocked", Layout::blocked, 1);
  return all;
}

std::vector<Variable> variables(const Case& c, const Arrangement& a, DType dtype, Device device) {
  std::vector<Variable> v;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Tensor& t = c.inputs[i];
    // Rank-4 leaves keep the layout that they are made in; others have none.
    if (t.defined())
      v.emplace_back(t.to(dtype).to(device).to(a.layouts[i]).clone(), true);
    else
      v.emplace_back();
  }
  return v;
}

Case rounded(Case c, DType dtype) {
  for (Tensor& t : c.inputs)
    if (t.defined()) t = t.to(dtype).to(DType::f64);
  return c;
}

Tensor contraction(const Shape& shape) { return noise(shape, 99).to(DType::bf16); }

Result result_of(const Variable& y, const std::vector<Variable>& inputs) {
  const auto here = [](const Tensor& t) { return t.to(Device::cpu()).plain().to(DType::f64); };
  Result r{here(y.data()), {}};
  for (const Variable& v : inputs)
    r.grads.push_back(v.defined() && v.grad().defined() ? here(v.grad()) : Tensor());
  return r;
}

Result evaluate(const Case& c, const Arrangement& a, DType dtype, Device device) {
  const std::vector<Variable> in = variables(c, a, dtype, device);
  const Variable y = c.run(in);
  y.backward(constant(contraction(y.shape()).to(y.data().dtype()), y).to(y.data().layout()));
  return result_of(y, in);
}

namespace {
double largest(const Tensor& t) {
  double m = 0;
  for (double v : t.to_vector<double>()) m = std::max(m, std::abs(v));
  return m;
}
}  // namespace

void expect_close(const Tensor& got, const Tensor& want, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(got.defined(), want.defined()) << what;
  if (!got.defined()) return;
  ASSERT_EQ(got.shape(), want.shape()) << what;
  const auto a = got.to_vector<double>(), b = want.to_vector<double>();
  const double scale = std::max(largest(want), 1e-6);
  for (size_t i = 0; i < a.size(); ++i) {
    // Not EXPECT_LE on a maximum: a NaN must fail.
    ASSERT_TRUE(std::abs(a[i] - b[i]) <= tolerance * scale)
        << what << ": element " << i << " is " << a[i] << ", expected " << b[i] << ", largest "
        << scale;
  }
}

void expect_close(const Result& got, const Result& want, double tolerance,
                  const std::string& what) {
  expect_close(got.y, want.y, tolerance, what + " output");
  for (size_t i = 0; i < want.grads.size(); ++i)
    expect_close(got.grads[i], want.grads[i], tolerance, str(what, " gradient ", i));
}

void expect_same_bits(const Result& got, const Result& want, const std::string& what) {
  EXPECT_TRUE(identical(got.y, want.y)) << what << ": the output differs";
  ASSERT_EQ(got.grads.size(), want.grads.size());
  for (size_t i = 0; i < got.grads.size(); ++i)
    EXPECT_TRUE(identical(got.grads[i], want.grads[i])) << what << ": gradient " << i << " differs";
}

std::string row_name(const ::testing::TestParamInfo<size_t>& parameter) {
  std::string name = rows()[parameter.param].function;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace mtcki::op_table
