// Where in an image the networks see what they decide (SpaceshipNet; Yu et al., "Data-Free Knowledge
// Distillation via Feature Exchange and Activation Region Constraint", CVPR 2023):
//
//   ActivationMaps     L = Σ_m w_m mean (C_S − C_m)²,  C = W F [B,K,H,W]: F the map that the feature is
//                      the mean of, W the classifier, a constant (Zhou et al. 2016)
//   ActivationRegions  L = Σ_m w_m Σ_l mean (R_S,l − R_m,l)²,  R_l = Σ_c α_l,c A_l,c [B,H_l,W_l],
//                      α = mean over pixels of ∂z_ŷ/∂A, a constant (Selvaraju et al. 2017, without
//                      its rectifier); ŷ the class of the fused teachers, for all networks
//
// A_l: of all inputs of a network's stages the last one of each size that all of the networks have.
// Where the last maps F differ in size, the larger C is averaged down. One teacher and networks of one
// family: the authors' losses, in their form that leaves the last stage to ActivationMaps.
#pragma once

#include "mtcki/losses/student_term.h"

namespace mtcki {

class ActivationMaps : public StudentTerm {
 public:
  // UsageError when a network does not end with a linear layer.
  explicit ActivationMaps(const StudentTermContext& context);
  bool needs_maps() const override { return true; }
  Variable loss(const StudentStep& step) override;

 private:
  Student& student_;
  std::vector<Tensor> classifiers_;  // of the teachers
};

class ActivationRegions : public StudentTerm {
 public:
  bool needs_maps() const override { return true; }
  bool looks_back() const override { return true; }
  // UsageError when the networks have no size in common.
  Variable loss(const StudentStep& step) override;
};

// C of a map, and R of maps and their gradients.
Variable class_activation(const Variable& map, const Tensor& classifier);
Variable activation_region(const Variable& map, const Tensor& gradient);

}  // namespace mtcki
