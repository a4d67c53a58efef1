#include "mtcki/losses/teacher_student_contrast.h"

#include <algorithm>

#include "autograd/functions.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

// −mean_i mean over positives p(i) of log softmax_j(q_i·v_j/τ)_p; positives share the label.
Variable supervised(const Variable& q, const Variable& v, const Tensor& anchor_labels,
                    const Tensor& key_labels, double tau) {
  const int64_t a = anchor_labels.size(0), j = key_labels.size(0);
  Tensor positive =
      equal(anchor_labels.reshape({a, 1}), key_labels.reshape({1, j})).to(q.data().dtype());
  positive = div(positive, sum(positive, {1}, true));  // its own key is always one
  const Variable log_p = log_softmax(mul(matmul(q, transpose(v)), 1.0 / tau));
  return mul(sum(mul(log_p, Variable(positive))), -1.0 / static_cast<double>(a));
}

}  // namespace

TeacherStudentContrast::TeacherStudentContrast(const Teachers& teachers, int64_t student_dim,
                                               const DistillConfig& config, uint64_t seed)
    : config_(config), weights_(teachers.weights()), diagonal_(teachers.device()) {
  const Device device = teachers.device();
  nn::Init init(seed);
  init.rng.stream = rng_stream("distill/contrast_heads");
  const auto head = [&](int64_t dim) {
    auto made = config.ts_head == "linear" ? linear_head(dim, config.ts_dim, init)
                                           : projection_head(dim, config.ts_dim, init);
    made->to(device);
    return made;
  };
  student_head_ = head(student_dim);
  for (size_t m = 0; m < teachers.size(); ++m) {
    teacher_heads_.push_back(head(teachers[m].feature_dim()));
    Queue queue;
    if (config.ts_queue > 0) {
      queue.keys = Tensor::zeros({config.ts_queue, config.ts_dim}, DType::f32, device);
      queue.labels = Tensor::zeros({config.ts_queue}, DType::i64, device);
    }
    queues_.push_back(queue);
  }
}

Variable TeacherStudentContrast::loss(const Variable& student_feature,
                                      const std::vector<Tensor>& teacher_features,
                                      const Tensor& labels) {
  const int64_t batch = student_feature.size(0);
  const double tau = config_.ts_tau;
  const Tensor positive = diagonal_.of(batch);
  const Tensor row_weights =
      Tensor::full({batch}, 1.0 / static_cast<double>(batch), student_feature.data().dtype(),
                   student_feature.data().device());
  const Variable q = normalize((*student_head_)(student_feature));
  last_labels_ = labels;
  Variable total;
  for (size_t m = 0; m < queues_.size(); ++m) {
    Queue& queue = queues_[m];
    const Variable k = normalize((*teacher_heads_[m])(Variable(teacher_features.at(m))));
    keep_keys(queue, k.data());
    const Tensor past = rows(queue.keys, queue.filled);
    const Variable v = past.defined() ? cat(std::vector<Variable>{k, Variable(past)}) : k;
    Variable term;
    if (config_.ts_supcon) {
      const Tensor past_labels = rows(queue.labels, queue.filled);
      term = supervised(
          q, v, labels,
          past_labels.defined() ? cat(std::vector<Tensor>{labels, past_labels}) : labels, tau);
      if (config_.ts_sym) term = mul(add(term, supervised(k, q, labels, labels, tau)), 0.5);
    } else {
      term = info_nce(q, v, positive, tau, row_weights);
      if (config_.ts_sym) term = mul(add(term, info_nce(k, q, positive, tau, row_weights)), 0.5);
    }
    if (weights_[m] != 1.0) term = mul(term, weights_[m]);
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

void TeacherStudentContrast::keep_keys(Queue& queue, const Tensor& keys) {
  if (keys.device().is_cpu()) {
    queue.last_keys = keys;
    return;
  }
  // What a captured step leaves behind has to stay where it is.
  if (!queue.last_keys.defined() || queue.last_keys.shape() != keys.shape())
    queue.last_keys = Tensor::empty_like(keys);
  queue.last_keys.copy_(keys);
}

void TeacherStudentContrast::enqueue() {
  if (config_.ts_queue == 0) return;
  for (Queue& queue : queues_) {
    const int64_t size = config_.ts_queue, rows_now = queue.last_keys.size(0);
    for (int64_t from = std::max<int64_t>(0, rows_now - size); from < rows_now;) {
      const int64_t n = std::min(rows_now - from, size - queue.position);
      queue.keys.slice(queue.position, queue.position + n)
          .copy_(queue.last_keys.slice(from, from + n));
      queue.labels.slice(queue.position, queue.position + n)
          .copy_(last_labels_.slice(from, from + n));
      from += n;
      queue.position = (queue.position + n) % size;
      queue.filled = std::min(size, queue.filled + n);
    }
    if (queue.keys.device().is_cpu()) queue.last_keys = {};
  }
}

nn::NamedList<Variable> TeacherStudentContrast::parameters() {
  nn::NamedList<Variable> out;
  for (auto& [name, p] : student_head_->named_parameters())
    out.emplace_back("ts.student." + name, *p);
  for (size_t m = 0; m < teacher_heads_.size(); ++m)
    for (auto& [name, p] : teacher_heads_[m]->named_parameters())
      out.emplace_back(str("ts.teacher.", m, ".", name), *p);
  return out;
}

nn::StateDict TeacherStudentContrast::state_dict() const {
  nn::StateDict out;
  append(out, student_head_->state_dict(), "student.");
  for (size_t m = 0; m < queues_.size(); ++m) {
    append(out, teacher_heads_[m]->state_dict(), str("teacher.", m, "."));
    const Queue& queue = queues_[m];
    if (config_.ts_queue == 0) continue;
    out.emplace_back(str("queue.", m, ".keys"), queue.keys.clone());
    out.emplace_back(str("queue.", m, ".labels"), queue.labels.clone());
    out.emplace_back(str("queue.", m, ".ring"),
                     Tensor::from(std::vector<int64_t>{queue.filled, queue.position}, {2}));
  }
  return out;
}

void TeacherStudentContrast::load_state_dict(const nn::StateDict& state) {
  student_head_->load_state_dict(under(state, "student."));
  for (size_t m = 0; m < queues_.size(); ++m) {
    teacher_heads_[m]->load_state_dict(under(state, str("teacher.", m, ".")));
    if (config_.ts_queue == 0) continue;
    const nn::StateDict saved = under(state, str("queue.", m, "."));
    const Tensor ring = entry(saved, "ring"), keys = entry(saved, "keys"),
                 labels = entry(saved, "labels");
    if (!ring.defined() || !keys.defined() || !labels.defined())
      throw DataError(str("teacher_student_contrast state: queue ", m, " is missing"));
    queues_[m].keys.copy_(keys);
    queues_[m].labels.copy_(labels);
    const auto numbers = ring.to_vector<int64_t>();
    queues_[m].filled = std::clamp<int64_t>(numbers.at(0), 0, config_.ts_queue);
    queues_[m].position = std::clamp<int64_t>(numbers.at(1), 0, config_.ts_queue - 1);
  }
}

}  // namespace mtcki
