// The table of loss terms on a student, as terms.cpp is of those on images.
#include "autograd/functions.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/losses/teacher_student_contrast.h"

namespace mtcki {

namespace {

using PlainStudentTerm = Plain<StudentTerm, StudentStep>;

auto plain_student(Rows rows, const PlainStudentTerm::Formula& formula) {
  return [rows, formula](const StudentTermContext&) {
    return std::make_unique<PlainStudentTerm>(rows, formula);
  };
}

}  // namespace

const std::vector<StudentTermRow>& student_terms() {
  static const std::vector<StudentTermRow> rows{
      {"kd", 1.0, "fused_kd", "weight of the distillation from the fused teachers",
       "T² KL(P_T ‖ softmax(z_S/T))",
       plain_student(Rows::mean,
                     [](const StudentStep& s) {
                       return fused_kd(s.targets, s.student.logits, s.temperature);
                     })},
      {"l1", 0.0, "l1_logits",
       "weight of the distance of the logits from the fused teachers' (DFAD, DFED)",
       "mean |z_S − z̄|",
       plain_student(Rows::mean,
                     [](const StudentStep& s) {
                       return mean(abs(sub(s.student.logits, Variable(s.targets))));
                     })},
      {"ts", 0.5, "teacher_student_contrast", "weight eta of the teacher/student contrast",
       "Σ_m w_m InfoNCE of W_m f_S against f_m of batch and queue",
       [](const StudentTermContext& c) {
         return std::make_unique<TeacherStudentContrast>(c.teachers, c.student_dim, c.config,
                                                         c.seed);
       }}};
  return rows;
}

}  // namespace mtcki
