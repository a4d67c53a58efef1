// Accuracy and agreement on a labelled set.
#pragma once

#include <cstdint>
#include <functional>

#include "data/sets/dataset.h"
#include "mtcki/networks/student.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

// Percent.
struct Accuracy {
  double top1 = -1, top5 = -1;
  int64_t n = 0;
};

// images f32 [B,C,H,W] in [0,1] -> logits [B,K], no graph.
using LogitsFn = std::function<Tensor(const Tensor& images)>;

// The set with its images on a device; labels stay on the host.
data::ImageSet on_device(data::ImageSet set, Device device);
// Logits of all images, in order: f32 [N,K] on the CPU. `logits` gets images where the set has
// them.
Tensor logits_of(const data::ImageSet& set, const LogitsFn& logits, int64_t batch_size = 500);
Accuracy accuracy(const Tensor& logits, const Tensor& labels);
// One line when top1 is no better than guessing among so many classes (up to three standard
// deviations of the guess): what usually causes that. "" otherwise.
std::string chance_hint(const Accuracy& a, int64_t classes);
Accuracy evaluate(const data::ImageSet& set, const LogitsFn& logits);

Accuracy evaluate(Teacher& teacher, const data::ImageSet& set);
// In eval mode; the student's mode is restored.
Accuracy evaluate(Student& student, const data::ImageSet& set);
Tensor student_logits(Student& student, const data::ImageSet& set);

// Percent of rows whose arg max agrees.
double agreement(const Tensor& a, const Tensor& b);
// JS loyalty: 100·(1 − mean JS(softmax a, softmax b) / ln 2).
double js_loyalty(const Tensor& a, const Tensor& b);

}  // namespace mtcki
