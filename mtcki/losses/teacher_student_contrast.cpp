#include "mtcki/losses/teacher_student_contrast.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "tensor/comm.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

namespace {

// Pooled features of a rectifier are all positive: as they are, any two point nearly one way.
Tensor standardised(const Tensor& features) {
  const Tensor centred = sub(features, mean(features, {0}, true));
  const Tensor variance = mean(square(centred), {0}, true);
  return div(centred, sqrt(add(variance, 1e-5)));
}

}  // namespace

TeacherStudentContrast::TeacherStudentContrast(const Teachers& teachers, int64_t student_dim,
                                               const DistillConfig& config, uint64_t seed)
    : tau_(config.ts_tau), ramp_(config.ts_ramp), size_(config.ts_queue), teachers_(teachers) {
  const Device device = teachers.device();
  nn::Init init(seed);
  init.rng.stream = rng_stream("distill/contrast_heads");
  for (size_t m = 0; m < teachers.size(); ++m) {
    const int64_t dim = teachers[m].feature_dim();
    maps_.push_back(std::make_unique<nn::Linear>(student_dim, dim, false, init));
    maps_.back()->to(device);
    queues_.push_back(Tensor::zeros({size_, dim}, DType::f32, device));
  }
  last_keys_.resize(maps_.size());
}

// Every row meets every other: the loss of all rows, on every rank.
Variable TeacherStudentContrast::loss(const StudentStep& s) {
  std::vector<Tensor> features;
  for (const Tensor& f : s.features) features.push_back(communicator().all_gather(f));
  return loss(all_rows(s.student.feature), features);
}

Variable TeacherStudentContrast::loss(const Variable& student_feature,
                                      const std::vector<Tensor>& teacher_features) {
  const int64_t batch = student_feature.size(0);
  chance_ = std::log(static_cast<double>(batch + filled_));
  const Tensor row_weights =
      Tensor::full({batch}, 1.0 / static_cast<double>(batch), student_feature.data().dtype(),
                   student_feature.data().device());
  const std::vector<double> weights = teachers_.weights();
  Variable total;
  for (size_t m = 0; m < maps_.size(); ++m) {
    const Variable q = normalize((*maps_[m])(student_feature));
    const Tensor k = normalize(standardised(teacher_features.at(m)));
    Tensor& last = last_keys_[m];
    // What a captured step leaves behind has to stay where it is.
    if (!last.defined() || last.shape() != k.shape()) last = Tensor::empty_like(k);
    last.copy_(k);
    const Tensor keys = filled_ > 0 ? cat(std::vector<Tensor>{k, queues_[m].slice(0, filled_)}) : k;
    const Variable term = mul(info_nce(q, Variable(keys), tau_, row_weights), weights[m]);
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

void TeacherStudentContrast::finish_step() {
  if (size_ == 0) return;
  const int64_t rows = last_keys_.front().size(0);
  for (int64_t from = std::max<int64_t>(0, rows - size_); from < rows;) {
    const int64_t n = std::min(rows - from, size_ - position_);
    for (size_t m = 0; m < queues_.size(); ++m)
      queues_[m].slice(position_, position_ + n).copy_(last_keys_[m].slice(from, from + n));
    from += n;
    position_ = (position_ + n) % size_;
    filled_ = std::min(size_, filled_ + n);
  }
}

nn::NamedList<Variable> TeacherStudentContrast::parameters() {
  nn::NamedList<Variable> out;
  for (size_t m = 0; m < maps_.size(); ++m)
    out.emplace_back(str("ts.", m, ".weight"), maps_[m]->weight);
  return out;
}

void TeacherStudentContrast::visit(State& s) {
  for (size_t m = 0; m < maps_.size(); ++m) {
    s(str("map.", m), *maps_[m]);
    s(str("queue.", m), queues_[m]);
  }
  s("filled", filled_);
  s("position", position_);
}

}  // namespace mtcki
