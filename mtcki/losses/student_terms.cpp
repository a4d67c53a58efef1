// The table of loss terms on a student, as terms.cpp is of those on images.
#include "autograd/functions.h"
#include "mtcki/losses/activation_regions.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/losses/teacher_student_contrast.h"
#include "optim/gradient_sync.h"

namespace mtcki {

namespace {

using PlainStudentTerm = Plain<StudentTerm, StudentStep>;

auto plain_student(Rows rows, const PlainStudentTerm::Formula& formula) {
  return [rows, formula](const StudentTermContext&) {
    return std::make_unique<PlainStudentTerm>(rows, formula);
  };
}

// The heads belong to the student, as images may be driven away from each of them, too.
class Heads : public StudentTerm {
 public:
  explicit Heads(const StudentTermContext& c) : student_(c.student) {
    student_.add_heads(c.teachers.size(), c.seed);
  }
  Variable loss(const StudentStep& s) override {
    const std::vector<Variable> own = student_.head_logits(s.student);
    std::vector<Variable> terms;
    for (size_t m = 0; m < own.size(); ++m)
      terms.push_back(fused_kd(s.logits[m], own[m], s.temperature));
    return weighted_sum(terms, s.weights);
  }
  nn::NamedList<Variable> parameters() override {
    nn::NamedList<Variable> out;
    for (auto& [name, head] : student_.heads()) {
      out.emplace_back(name + ".weight", head->weight);
      out.emplace_back(name + ".bias", *head->bias);
    }
    return out;
  }
  void finish_backward() override {
    student_.share_gradient_of_heads();
    for (auto& [name, head] : student_.heads())
      optim::all_reduce_gradients(head->parameters(), communicator());
  }
  void visit(State& s) override {
    for (auto& [name, head] : student_.heads()) s(name, *head);
  }

 private:
  Student& student_;
};

}  // namespace

const std::vector<StudentTermRow>& student_terms() {
  static const std::vector<StudentTermRow> rows{
      {"kd", 1.0, "fused_kd", "weight of the distillation from the fused teachers",
       "T² KL(P_T ‖ softmax(z_S/T))",
       plain_student(Rows::mean,
                     [](const StudentStep& s) {
                       return fused_kd(s.targets, s.student.logits, s.temperature, s.counts);
                     })},
      {"l1", 0.0, "l1_logits",
       "weight of the distance of the logits from the fused teachers' (DFAD, DFED)",
       "mean |z_S − z̄|",
       plain_student(Rows::mean,
                     [](const StudentStep& s) {
                       return mean(abs(sub(s.student.logits, Variable(s.targets))));
                     })},
      {"heads", 0.0, "head_kd",
       "weight of the distillation of each teacher into a head of its own, whose mean is the "
       "student (CDFKD)",
       "Σ_m w_m T² KL(p_m ‖ p_S,m)",
       [](const StudentTermContext& c) { return std::make_unique<Heads>(c); }},
      {"cam", 0.0, "activation_maps",
       "weight of the distance of the class activation maps (SpaceshipNet)",
       "Σ_m w_m mean (W_S F_S − W_m F_m)²",
       [](const StudentTermContext& c) { return std::make_unique<ActivationMaps>(c); }},
      {"grad_cam", 0.0, "activation_regions",
       "weight of the distance of the regions that speak for the class (SpaceshipNet)",
       "Σ_m w_m Σ_l mean (Σ_c α_S A_S − Σ_c α_m A_m)², α = mean over pixels of ∂z_ŷ/∂A",
       [](const StudentTermContext&) { return std::make_unique<ActivationRegions>(); }},
      {"ts", 0.5, "teacher_student_contrast", "weight eta of the teacher/student contrast",
       "Σ_m w_m InfoNCE of W_m f_S against f_m of batch and queue",
       [](const StudentTermContext& c) {
         return std::make_unique<TeacherStudentContrast>(c.teachers, c.student.net().feature_dim(),
                                                         c.config, c.seed);
       }}};
  return rows;
}

}  // namespace mtcki
