// The multi-teacher/student contrast: values from its formula, gradients, queues, resume, and that it
// learns at the rate of the demonstration.
#include "mtcki/losses/teacher_student_contrast.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/state_dict.h"
#include "optim/optimizer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki::teacher_student_contrast_test {
namespace {

constexpr int64_t kBatch = 5, kStudentDim = 6;

class TeacherStudentContrastTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int m = 0; m < 2; ++m) {
      const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
      nn::Init init(static_cast<uint64_t>(m));
      teachers_.add(std::make_unique<Teacher>(
          Teacher::Options{str("t", m), spec, {{0.5}, {0.5}}, m == 0 ? 1.0 : 3.0, -1},
          nn::make_classifier(spec, init)));
    }
    dim_ = teachers_[0].feature_dim();
    config_.ts_queue = 7;
    config_.ts_tau = 0.5;
  }
  Tensor student(uint64_t step) const { return randn({kBatch, kStudentDim}, Rng{1, 1, step}); }
  std::vector<Tensor> teacher(uint64_t step) const {
    return {randn({kBatch, dim_}, Rng{2, 1, step}), randn({kBatch, dim_}, Rng{3, 1, step})};
  }
  TeacherStudentContrast make() const { return {teachers_, kStudentDim, config_, 9}; }
  static StageState state_of(TeacherStudentContrast& c) {
    StageState state;
    save(c, state);
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();  // as a file would hold it
    return state;
  }
  double value(TeacherStudentContrast& c, uint64_t step) const {
    return c.loss(Variable(student(step)), teacher(step)).item();
  }

  Teachers teachers_;
  DistillConfig config_;
  int64_t dim_ = 0;
};

using Matrix = std::vector<std::vector<double>>;

Matrix rows_of(const Tensor& t) {
  const auto v = t.to_vector<double>();
  Matrix out(static_cast<size_t>(t.size(0)));
  const size_t width = v.size() / out.size();
  for (size_t i = 0; i < out.size(); ++i)
    out[i].assign(v.begin() + static_cast<int64_t>(i * width),
                  v.begin() + static_cast<int64_t>((i + 1) * width));
  return out;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}

void normalise(Matrix& x) {
  for (auto& row : x) {
    const double length = std::sqrt(dot(row, row));
    for (double& v : row) v /= length;
  }
}

// Keys from features, written from the formula.
Matrix keys_of(const Tensor& features) {
  Matrix k = rows_of(features);
  for (size_t c = 0; c < k[0].size(); ++c) {
    double mean = 0, variance = 0;
    for (const auto& row : k) mean += row[c] / static_cast<double>(k.size());
    for (const auto& row : k)
      variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(k.size());
    for (auto& row : k) row[c] = (row[c] - mean) / std::sqrt(variance + 1e-5);
  }
  normalise(k);
  return k;
}

TEST_F(TeacherStudentContrastTest, EqualsTheFormulaWithAndWithoutPastKeys) {
  TeacherStudentContrast c = make();
  const StageState state = state_of(c);
  const double weight[] = {0.25, 0.75};
  Matrix past[2];
  for (uint64_t step = 0; step < 3; ++step) {  // of 5 rows each, into a queue of 7: it wraps
    const Matrix f = rows_of(student(step));
    double want = 0;
    for (size_t m = 0; m < 2; ++m) {
      const Matrix map = rows_of(entry(state.tensors, str("map.", m, ".weight")));
      Matrix q(f.size()), keys = keys_of(teacher(step)[m]);
      for (size_t i = 0; i < f.size(); ++i)
        for (const auto& row : map) q[i].push_back(dot(row, f[i]));
      normalise(q);
      const Matrix now = keys;
      keys.insert(keys.end(), past[m].begin(), past[m].end());
      for (size_t i = 0; i < q.size(); ++i) {
        double z = 0;
        for (const auto& k : keys) z += std::exp(dot(q[i], k) / config_.ts_tau);
        want += weight[m] * (std::log(z) - dot(q[i], keys[i]) / config_.ts_tau) / kBatch;
      }
      // The last 7, in any order.
      past[m].insert(past[m].end(), now.begin(), now.end());
      if (past[m].size() > 7) past[m].erase(past[m].begin(), past[m].end() - 7);
    }
    const double keys = std::min<double>(5.0 * static_cast<double>(step), 7) + 5;
    EXPECT_EQ(c.settled(), step == 2);
    EXPECT_NEAR(value(c, step), want, 1e-5) << step;
    EXPECT_DOUBLE_EQ(*c.chance(), std::log(keys));
    c.finish_step();
  }
}

TEST_F(TeacherStudentContrastTest, GradientsEqualFiniteDifferences) {
  TeacherStudentContrast c = make();
  value(c, 1);
  c.finish_step();
  const Variable s(student(0), true);
  c.loss(s, teacher(0)).backward();
  const auto check = [&](Tensor x, const Tensor& g, const std::string& what) {
    ASSERT_TRUE(g.defined()) << what;
    float* p = x.data<float>();
    for (int64_t i = 0; i < x.numel(); i += 1 + x.numel() / 8) {
      const float before = p[i], h = 5e-3f;
      p[i] = before + h;
      const double up = c.loss(s, teacher(0)).item();
      p[i] = before - h;
      const double down = c.loss(s, teacher(0)).item();
      p[i] = before;
      EXPECT_NEAR(g.to_vector<float>()[static_cast<size_t>(i)], (up - down) / (2 * h), 5e-4)
          << what << " " << i;
    }
  };
  check(s.data(), s.grad(), "student");
  for (auto& [name, p] : c.parameters()) check(p.data(), p.grad(), name);
}

TEST_F(TeacherStudentContrastTest, StateContinuesExactly) {
  TeacherStudentContrast a = make(), b(teachers_, kStudentDim, config_, 10);
  for (uint64_t i = 0; i < 3; ++i) {
    value(a, i);
    a.finish_step();
  }
  load(b, state_of(a));
  for (uint64_t i = 5; i < 7; ++i) {  // the place in the ring too
    EXPECT_EQ(value(a, i), value(b, i));
    a.finish_step();
    b.finish_step();
  }
  StageState torn = state_of(a);
  torn.tensors.pop_back();
  EXPECT_THROW(load(b, torn), DataError);
  config_.ts_queue = 8;
  TeacherStudentContrast other = make();
  EXPECT_THROW(load(other, state_of(a)), DataError);
}

TEST_F(TeacherStudentContrastTest, WorksWithoutAQueue) {
  config_.ts_queue = 0;
  TeacherStudentContrast c = make();
  EXPECT_TRUE(c.settled());
  const double before = value(c, 0);
  c.finish_step();
  EXPECT_EQ(value(c, 0), before);
  TeacherStudentContrast again = make();
  load(again, state_of(c));
  EXPECT_EQ(value(again, 0), before);
}

// At the demonstration's rate and momentum, on ten clusters: what has to be told apart is mostly alike.
// The form before this one, whose teachers had trained heads, ended at 0.60 of chance here (0.55 with
// linear heads), and at chance in the demonstration; this one ends at 0.34.
TEST_F(TeacherStudentContrastTest, StaysBelowChanceAtAHighRate) {
  constexpr int64_t kRows = 64, kInputs = 16;
  config_.ts_queue = 512;
  config_.ts_tau = DistillConfig().ts_tau;
  nn::Init init(3);
  nn::Linear student(kInputs, 32, true, init);
  TeacherStudentContrast c(teachers_, 32, config_, 9);
  const Tensor see[2] = {randn({kInputs, dim_}, Rng{5, 1, 0}),
                         randn({kInputs, dim_}, Rng{5, 1, 1})};
  optim::SgdOptions sgd;
  sgd.lr = 0.3;
  sgd.momentum = 0.9;
  sgd.weight_decay = 1e-4;
  const auto optimizer = optim::make_sgd({optim::group_of(student), {c.parameters()}}, sgd);
  const Tensor centres = randn({10, kInputs}, Rng{7, 1, 0});
  std::vector<int64_t> cluster(kRows);
  for (int64_t i = 0; i < kRows; ++i) cluster[static_cast<size_t>(i)] = i % 10;
  const Tensor centre = index_select(centres, Tensor::from(cluster, {kRows}));
  double last = 0;
  for (uint64_t step = 0; step < 300; ++step) {
    const Variable x(add(centre, mul(randn({kRows, kInputs}, Rng{6, 1, step}), 0.3)));
    const std::vector<Tensor> seen = {relu(matmul(x, Variable(see[0]))).data(),
                                      relu(matmul(x, Variable(see[1]))).data()};
    optimizer->zero_grad();
    const Variable loss = c.loss(relu(student(x)), seen);
    loss.backward();
    optimizer->step();
    c.finish_step();
    if (step >= 280) last += loss.item() / 20;
  }
  EXPECT_LT(last, 0.5 * *c.chance());
}

}  // namespace
}  // namespace mtcki::teacher_student_contrast_test
