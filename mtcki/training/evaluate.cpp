#include "mtcki/training/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "mtcki/training/step_metrics.h"
#include "tensor/comm.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

Tensor logits_of(const data::ImageSet& set, const LogitsFn& logits, int64_t batch_size) {
  const NoGradScope no_grad;
  const Communicator& comm = communicator();
  const auto rows = [&](int64_t i) {
    return logits(u8_to_unit(set.images.slice(i, std::min(set.size(), i + batch_size))));
  };
  if (comm.size() == 1) {
    std::vector<Tensor> parts;
    for (int64_t i = 0; i < set.size(); i += batch_size) parts.push_back(rows(i));
    return cat(parts).to(Device::cpu());
  }
  // Ranks take turns; what a rank did not compute is 0 in its sum.
  batch_size = std::max<int64_t>(1, std::min(batch_size, set.size() / comm.size()));
  Tensor all;
  for (int64_t i = comm.rank() * batch_size; i < set.size(); i += comm.size() * batch_size) {
    const Tensor part = rows(i).to(Device::cpu()).to(DType::f32);
    if (!all.defined()) all = Tensor::zeros({set.size(), part.size(1)});
    all.slice(i, i + part.size(0)).copy_(part);
  }
  const int64_t classes = comm.max(all.defined() ? all.size(1) : 0);
  if (!all.defined()) all = Tensor::zeros({set.size(), classes});
  comm.all_reduce_sum_(all);
  return all;
}

data::ImageSet on_device(data::ImageSet set, Device device) {
  set.images = set.images.to(device);
  return set;
}

Accuracy accuracy(const Tensor& logits, const Tensor& labels) {
  Accuracy a;
  a.n = labels.size(0);
  if (a.n == 0) return a;
  const double percent = 100.0 / static_cast<double>(a.n);
  const int k = static_cast<int>(std::min<int64_t>(5, logits.size(1)));
  a.top1 = percent * static_cast<double>(count_topk_correct(logits, labels, 1));
  a.top5 = percent * static_cast<double>(count_topk_correct(logits, labels, k));
  return a;
}

std::string chance_hint(const Accuracy& a, int64_t classes) {
  if (a.n == 0 || classes < 2) return "";
  const double p = 1.0 / static_cast<double>(classes), n = static_cast<double>(a.n);
  if (a.top1 > 100 * (p + 3 * std::sqrt(p * (1 - p) / n))) return "";
  return fmt::format(
      "top-1 {:.2f} % is what guessing gives ({:.2f} %): usual causes are another order of the "
      "labels, another normalisation (mean, std), or a variant of the network with the same names "
      "(a pool behind the stem, another stride: mtcki inspect WEIGHTS)",
      a.top1, 100 * p);
}

Accuracy evaluate(const data::ImageSet& set, const LogitsFn& logits) {
  return accuracy(logits_of(set, logits), set.labels);
}

Accuracy evaluate(Teacher& teacher, const data::ImageSet& set) {
  return evaluate(on_device(set, teacher.device()),
                  [&](const Tensor& x) { return teacher.forward_no_grad(x).logits.data(); });
}

Tensor student_logits(Student& student, const data::ImageSet& set) {
  struct Restore {
    nn::Classifier& net;
    bool training;
    ~Restore() { net.train(training); }
  } restore{student.net(), student.net().training()};
  student.net().eval();
  return logits_of(on_device(set, student.device()),
                   [&](const Tensor& x) { return student.features(Variable(x)).logits.data(); });
}

Accuracy evaluate(Student& student, const data::ImageSet& set) {
  return accuracy(student_logits(student, set), set.labels);
}

double agreement(const Tensor& a, const Tensor& b) { return percent_agreement(a, b).item(); }

double js_loyalty(const Tensor& a, const Tensor& b) {
  return 100.0 * (1.0 - mean(js_rows(a, b, 1.0)).item() / std::log(2.0));
}

}  // namespace mtcki
