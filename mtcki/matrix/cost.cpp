#include "mtcki/matrix/cost.h"

#include <algorithm>
#include <map>

#include "nn/summary.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

double count(int64_t n) { return static_cast<double>(n); }

// Of one generated image, trained generator and all.
double generator_macs(const SynthesisConfig& s, const nn::ModelSpec& shape) {
  if (s.source != "generator") return 0;
  static std::map<std::string, double> known;
  const std::string key =
      str(s.generator, " ", s.nz, " ", s.ngf, " ", shape.in_channels, " ", shape.image_size);
  if (const auto it = known.find(key); it != known.end()) return it->second;
  nn::Init init;
  const auto net =
      nn::make_generator({s.generator, s.nz, s.ngf, shape.in_channels, shape.image_size}, init);
  return known[key] = 3 * nn::summarize(*net, Shape{1, s.nz}).macs;
}

double teachers_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  double all = 0;
  for (const TeacherConfig& t : c.teachers) all += model_macs(shape, t.model);
  return all;
}

double students_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  double all = 0;
  for (const StudentConfig& s : c.students) all += model_macs(shape, s.model);
  return all;
}

}  // namespace

double model_macs(nn::ModelSpec shape, const std::string& model) {
  static std::map<std::string, double> known;
  const std::string key =
      str(model, " ", shape.in_channels, " ", shape.image_size, " ", shape.num_classes);
  if (const auto it = known.find(key); it != known.end()) return it->second;
  shape.name = model;
  nn::Init init;
  const auto net = nn::make_classifier(shape, init);
  const Shape one{1, shape.in_channels, shape.image_size, shape.image_size};
  return known[key] = nn::summarize(*net, one).macs;
}

double planned_step_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  const SynthesisConfig& s = c.synthesis;
  const double all = teachers_macs(c, shape),
               teachers = count(static_cast<int64_t>(c.teachers.size()));
  const double drawn = s.teachers_per_step > 0 ? count(s.teachers_per_step) / teachers : 1.0;
  // The local view passes the teachers whose features are contrasted.
  double local = 0;
  if (s.loss.at("cr") > 0)
    local = s.cr_mode == "first" ? model_macs(shape, c.teachers[0].model) : all;
  return count(s.batch_size) * (generator_macs(s, shape) + 2 * drawn * (all + local));
}

double planned_distillation_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  const DistillConfig& d = c.distill;
  const int64_t pool = c.synthesis.batches * c.synthesis.batch_size;
  const int64_t pass = std::max<int64_t>(1, pool / d.batch_size);
  const int64_t steps = d.epochs * (d.steps_per_epoch > 0 ? d.steps_per_epoch : pass);
  const int64_t passes = (steps + pass - 1) / pass;
  const int64_t asked = d.views > 0 ? std::min(d.views, passes) * pool : steps * d.batch_size;
  return count(static_cast<int64_t>(c.students.size())) * count(asked) * teachers_macs(c, shape) +
         3 * count(steps * d.batch_size) * students_macs(c, shape);
}

double counted_macs(const RunConfig& c, const nn::ModelSpec& shape, const nlohmann::json& metrics) {
  const auto value = [&metrics](const char* key) { return metrics.value(key, 0.0); };
  const double students = std::max(1.0, count(static_cast<int64_t>(c.students.size())));
  return value("generator_steps") * count(c.synthesis.batch_size) *
             generator_macs(c.synthesis, shape) +
         2 * value("teacher_forward_macs") + value("kd_forward_macs") +
         3 * value("kd_steps") / students * count(c.distill.batch_size) * students_macs(c, shape);
}

}  // namespace mtcki
