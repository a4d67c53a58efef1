// What the student's losses need of the teachers for a batch: asked at the step, or, where
// distill.views limits the views of an image, made once for all images in a view and kept (soft
// labels per view; Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition",
// ECCV 2022).
#pragma once

#include <cstdint>
#include <vector>

#include "data/loader.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

struct TeacherOutputs {
  std::vector<Tensor> logits;    // [B, K] of every teacher
  std::vector<Tensor> features;  // [B, feature_dim()]; none where no loss reads them
};

// What a loss needs of the teachers, and how they normalise.
struct TeacherQuestion {
  bool features = false;
  // distill.teacher_bn = "batch": labels that depend on the batch, as dataset distillation makes
  // them (Li et al., "CV-DD", 2025).
  bool batch_statistics = false;
};

// One forward of every teacher, side by side where the device can; images [B,C,H,W] in [0,1].
TeacherOutputs ask_teachers(Teachers& teachers, const Tensor& images, TeacherQuestion question);

// The outputs for every image of a set in each of its views, on the teachers' device. They are a
// function of the teachers, the set and the loader's options alone: each view is made in the order
// of the set, in batches of the same size, so that a run which is resumed makes the same bits again.
class KeptTeacherOutputs {
 public:
  // options: those of the loader that gives the steps their batches; views > 0.
  KeptTeacherOutputs(Teachers& teachers, const data::ImageSet& set, data::LoaderOptions options,
                     TeacherQuestion question);

  // Makes a view unless it is there. Before a step that reads it, not inside a captured one. In a
  // job of several ranks each asks the teachers about its rows, and all keep all. Stopped when a
  // signal comes.
  void make(int64_t view);
  // Rows of views that were made: Batch::view_row.
  TeacherOutputs rows(const Tensor& view_row) const;

  // Memory of `images` in all their views.
  static uint64_t bytes(int64_t views, int64_t images, int64_t classes,
                        const std::vector<int64_t>& feature_dims);

 private:
  void keep(std::vector<Tensor>* all, const std::vector<Tensor>& rows, int64_t first) const;

  Teachers& teachers_;
  data::ImageSet set_;
  data::LoaderOptions options_;
  TeacherQuestion question_;
  std::vector<bool> made_;
  TeacherOutputs kept_;  // [views * size of the set, ...]: a captured step knows where they are
};

}  // namespace mtcki
