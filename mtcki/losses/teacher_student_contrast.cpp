#include "mtcki/losses/teacher_student_contrast.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "nn/state_dict.h"
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
    : tau_(config.ts_tau),
      size_(config.ts_queue),
      weights_(teachers.weights()) {
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

double TeacherStudentContrast::chance(int64_t rows) const {
  return std::log(static_cast<double>(rows + filled_));
}

Variable TeacherStudentContrast::loss(const Variable& student_feature,
                                      const std::vector<Tensor>& teacher_features) {
  const int64_t batch = student_feature.size(0);
  const Tensor row_weights =
      Tensor::full({batch}, 1.0 / static_cast<double>(batch), student_feature.data().dtype(),
                   student_feature.data().device());
  Variable total;
  for (size_t m = 0; m < maps_.size(); ++m) {
    const Variable q = normalize((*maps_[m])(student_feature));
    const Tensor k = normalize(standardised(teacher_features.at(m)));
    Tensor& last = last_keys_[m];
    // What a captured step leaves behind has to stay where it is.
    if (!last.defined() || last.shape() != k.shape()) last = Tensor::empty_like(k);
    last.copy_(k);
    const Tensor keys = filled_ > 0 ? cat(std::vector<Tensor>{k, queues_[m].slice(0, filled_)}) : k;
    const Variable term = mul(info_nce(q, Variable(keys), tau_, row_weights), weights_[m]);
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

void TeacherStudentContrast::enqueue() {
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

nn::StateDict TeacherStudentContrast::state_dict() const {
  nn::StateDict out;
  for (size_t m = 0; m < maps_.size(); ++m) {
    append(out, maps_[m]->state_dict(), str("map.", m, "."));
    out.emplace_back(str("queue.", m), queues_[m].clone());
  }
  out.emplace_back("ring", Tensor::from(std::vector<int64_t>{filled_, position_}, {2}));
  return out;
}

void TeacherStudentContrast::load_state_dict(const nn::StateDict& state) {
  const Tensor ring = entry(state, "ring");
  if (!ring.defined()) throw DataError("teacher_student_contrast state: ring is missing");
  for (size_t m = 0; m < maps_.size(); ++m) {
    maps_[m]->load_state_dict(under(state, str("map.", m, ".")));
    const Tensor keys = entry(state, str("queue.", m));
    if (!keys.defined() || keys.shape() != queues_[m].shape())
      throw DataError(str("teacher_student_contrast state: queue ", m, " is missing or misshapen"));
    queues_[m].copy_(keys);
  }
  const auto numbers = ring.to_vector<int64_t>();
  filled_ = std::clamp<int64_t>(numbers.at(0), 0, size_);
  position_ = size_ > 0 ? std::clamp<int64_t>(numbers.at(1), 0, size_ - 1) : 0;
}

}  // namespace mtcki
