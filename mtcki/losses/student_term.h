// A term of the loss on a student, and what a step of distillation offers it. The Distiller asks the
// teachers, weights the terms and adds them; the table is student_terms.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "mtcki/losses/term.h"
#include "mtcki/networks/student.h"
#include "nn/models/model.h"

namespace mtcki {

// Rows are those of this process. What comes from the teachers is constant.
struct StudentStep {
  Tensor labels;                 // i64 [B]; undefined when the images have none
  std::vector<Tensor> logits;    // [B,K] of every teacher
  std::vector<double> weights;   // w_m
  std::vector<Tensor> features;  // [B,d_m]; none when no term needs them
  Tensor targets;                // [B,K]: logits of all teachers together, as distill.fuse says
  double temperature = 1;
  Tensor counts = {};              // [B], what each image counts in kd; undefined: all alike
  nn::Classifier::Output student;  // with its graph; taps of its stages where a term needs maps
  // Passes of the teachers over the images, with a graph from there on, where a term needs maps.
  std::vector<Teacher::View> views;
};

class StudentTerm : public Term<StudentStep> {
 public:
  virtual bool needs_features() const { return false; }
  // Of every network the inputs of its stages, and the map that its feature is the mean of.
  virtual bool needs_maps() const { return false; }
  // Whether loss() passes back through all networks once, which costs as much as a forward.
  virtual bool looks_back() const { return false; }
  // Share of all steps over which the weight rises from 0.
  virtual double ramp() const { return 0; }
  // False as long as what loss() is computed from changes its shape from step to step.
  virtual bool settled() const { return true; }
  // Of what the term trains itself, for the student's optimiser.
  virtual nn::NamedList<Variable> parameters() { return {}; }
  // Between the backward and the optimiser's step.
  virtual void finish_backward() {}
  // After the optimiser's step. Not part of a captured one.
  virtual void finish_step() {}
};

// What a term is made from.
struct StudentTermContext {
  const Teachers& teachers;
  Student& student;
  const DistillConfig& config;
  uint64_t seed;
};

}  // namespace mtcki
