#include "mtcki/distillation/teacher_outputs.h"

#include "autograd/side_stream.h"
#include "mtcki/training/batch_source.h"
#include "mtcki/training/stage_control.h"
#include "tensor/comm.h"
#include "tensor/ops/index.h"

namespace mtcki {

TeacherOutputs ask_teachers(Teachers& teachers, const Tensor& images, TeacherQuestion question) {
  TeacherOutputs out;
  Branches branches(teachers.size(), images.device());
  for (size_t m = 0; m < teachers.size(); ++m)
    branches.run([&] {
      const nn::Classifier::Output y =
          teachers[m].forward_no_grad(images, question.batch_statistics);
      out.logits.push_back(y.logits.data());
      if (question.features) out.features.push_back(y.feature.data());
    });
  return out;
}

KeptTeacherOutputs::KeptTeacherOutputs(Teachers& teachers, const data::ImageSet& set,
                                       data::LoaderOptions options, TeacherQuestion question)
    : teachers_(teachers),
      set_(set),
      options_(std::move(options)),
      question_(question),
      made_(static_cast<size_t>(options_.views), false) {
  options_.shuffle = false;
  options_.drop_last = false;
}

void KeptTeacherOutputs::make(int64_t view) {
  if (made_.at(static_cast<size_t>(view))) return;
  BatchSource source(set_, options_, teachers_.device());
  int64_t first = view * set_.size();
  for (int64_t b = 0; b < source.batches_per_pass(); ++b) {
    stop_here_if_asked();
    const data::Batch batch = source.at(view * source.batches_per_pass() + b);
    TeacherOutputs y = ask_teachers(teachers_, batch.images, question_);
    for (std::vector<Tensor>* part : {&y.logits, &y.features})
      for (Tensor& t : *part) t = communicator().all_gather(t);
    keep(&kept_.logits, y.logits, first);
    keep(&kept_.features, y.features, first);
    first += y.logits.front().size(0);
  }
  made_[static_cast<size_t>(view)] = true;
}

void KeptTeacherOutputs::keep(std::vector<Tensor>* all, const std::vector<Tensor>& rows,
                              int64_t first) const {
  for (size_t m = 0; m < rows.size(); ++m) {
    const Tensor& t = rows[m];
    if (all->size() == m)
      all->push_back(
          Tensor::empty({options_.views * set_.size(), t.size(1)}, t.dtype(), t.device()));
    (*all)[m].slice(first, first + t.size(0)).copy_(t);
  }
}

TeacherOutputs KeptTeacherOutputs::rows(const Tensor& view_row) const {
  TeacherOutputs out;
  for (const Tensor& t : kept_.logits) out.logits.push_back(index_select(t, view_row));
  for (const Tensor& t : kept_.features) out.features.push_back(index_select(t, view_row));
  return out;
}

uint64_t KeptTeacherOutputs::bytes(int64_t views, int64_t images, int64_t classes,
                                   const std::vector<int64_t>& feature_dims) {
  int64_t numbers = 0;
  for (const int64_t dim : feature_dims) numbers += classes + dim;
  return static_cast<uint64_t>(views * images * numbers) * sizeof(float);
}

}  // namespace mtcki
