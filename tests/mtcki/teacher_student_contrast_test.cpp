// The multi-teacher/student contrast: values from its own heads, queues, variants, resume.
#include "mtcki/losses/teacher_student_contrast.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nn/state_dict.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/softmax.h"

namespace mtcki {
namespace {

constexpr int64_t kBatch = 5, kStudentDim = 6, kDim = 4;

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
    config_.ts_dim = kDim;
    config_.ts_queue = 7;
    config_.ts_head = "linear";
    config_.ts_tau = 0.5;
  }
  Tensor student(uint64_t step) const { return randn({kBatch, kStudentDim}, Rng{1, 1, step}); }
  std::vector<Tensor> teacher(uint64_t step) const {
    const int64_t d = teachers_[0].feature_dim();
    return {randn({kBatch, d}, Rng{2, 1, step}), randn({kBatch, d}, Rng{3, 1, step})};
  }
  // Cosines of student row i and teacher row j through the linear heads, over τ.
  std::vector<double> similarities(TeacherStudentContrast& c, const Tensor& s, const Tensor& t,
                                   int m) {
    const nn::StateDict state = c.state_dict();
    const auto project = [&](const Tensor& x, const std::string& head) {
      return normalize(linear(x, entry(state, head + "0.weight"), entry(state, head + "0.bias")));
    };
    auto v = matmul(project(s, "student."), project(t, str("teacher.", m, ".")), false, true)
                 .to_vector<double>();
    for (double& x : v) x /= config_.ts_tau;
    return v;
  }

  Teachers teachers_;
  DistillConfig config_;
  const Tensor labels_ = Tensor::from(std::vector<int64_t>{0, 1, 0, 2, 1}, {kBatch});
};

TEST_F(TeacherStudentContrastTest, EqualsTheFormula) {
  for (const bool supcon : {false, true})
    for (const bool sym : {false, true}) {
      config_.ts_supcon = supcon;
      config_.ts_sym = sym;
      TeacherStudentContrast c(teachers_, kStudentDim, config_, 9);
      const Tensor s = student(0);
      const auto t = teacher(0);
      const auto y = labels_.to_vector<int64_t>();
      double want = 0;
      for (int m = 0; m < 2; ++m) {
        const auto sim = similarities(c, s, t[static_cast<size_t>(m)], m);
        const auto at = [&](int64_t i, int64_t j, bool transposed) {
          return sim[static_cast<size_t>(transposed ? j * kBatch + i : i * kBatch + j)];
        };
        double both[2] = {0, 0};
        for (const bool transposed : {false, true})
          for (int64_t i = 0; i < kBatch; ++i) {
            double total = 0, positive = 0;
            int count = 0;
            for (int64_t j = 0; j < kBatch; ++j) {
              total += std::exp(at(i, j, transposed));
              const bool match =
                  supcon ? y[static_cast<size_t>(i)] == y[static_cast<size_t>(j)] : i == j;
              if (match) positive += at(i, j, transposed), ++count;
            }
            both[transposed] += (std::log(total) - positive / count) / kBatch;
          }
        want += (m == 0 ? 0.25 : 0.75) * (sym ? 0.5 * (both[0] + both[1]) : both[0]);
      }
      EXPECT_NEAR(c.loss(Variable(s), t, labels_).item(), want, 1e-5) << supcon << sym;
    }
}

TEST_F(TeacherStudentContrastTest, QueueAddsNegatives) {
  TeacherStudentContrast c(teachers_, kStudentDim, config_, 9);
  const double without = c.loss(Variable(student(0)), teacher(0), labels_).item();
  c.enqueue();
  const double with = c.loss(Variable(student(0)), teacher(0), labels_).item();
  EXPECT_GT(with, without);           // the same batch against five more keys
  for (uint64_t i = 1; i < 4; ++i) {  // 5 rows each into a queue of 7: it wraps
    c.loss(Variable(student(i)), teacher(i), labels_);
    c.enqueue();
  }
  config_.ts_queue = 0;
  TeacherStudentContrast none(teachers_, kStudentDim, config_, 9);
  none.loss(Variable(student(0)), teacher(0), labels_);
  none.enqueue();
  EXPECT_NEAR(none.loss(Variable(student(0)), teacher(0), labels_).item(), without, 1e-6);
}

TEST_F(TeacherStudentContrastTest, StateContinuesExactly) {
  for (const char* head : {"linear", "mlp"}) {
    config_.ts_head = head;
    TeacherStudentContrast a(teachers_, kStudentDim, config_, 9),
        b(teachers_, kStudentDim, config_, 10);
    for (uint64_t i = 0; i < 3; ++i) {
      a.loss(Variable(student(i)), teacher(i), labels_);
      a.enqueue();
    }
    b.load_state_dict(a.state_dict());
    EXPECT_EQ(a.loss(Variable(student(5)), teacher(5), labels_).item(),
              b.loss(Variable(student(5)), teacher(5), labels_).item());
  }
}

TEST_F(TeacherStudentContrastTest, StudentAndHeadsGetGradients) {
  TeacherStudentContrast c(teachers_, kStudentDim, config_, 9);
  const Variable s(student(0), true);
  c.loss(s, teacher(0), labels_).backward();
  EXPECT_TRUE(s.grad().defined());
  for (auto& [name, p] : c.parameters()) EXPECT_TRUE(p.grad().defined()) << name;
}

}  // namespace
}  // namespace mtcki
