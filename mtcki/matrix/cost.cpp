#include "mtcki/matrix/cost.h"

#include <algorithm>
#include <map>

#include "mtcki/config/table_names.h"
#include "nn/summary.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

double count(int64_t n) { return static_cast<double>(n); }

// Of one generated image, forward; pixels and given images have no generator.
double generator_macs(const SynthesisConfig& s, const nn::ModelSpec& shape) {
  if (s.source == "pixels" || is_given(s.source)) return 0;
  static std::map<std::string, double> known;
  const std::string key =
      str(s.generator, " ", s.nz, " ", s.ngf, " ", shape.in_channels, " ", shape.image_size);
  if (const auto it = known.find(key); it != known.end()) return it->second;
  nn::Init init;
  const auto net =
      nn::make_generator({s.generator, s.nz, s.ngf, shape.in_channels, shape.image_size}, init);
  return known[key] = nn::summarize(*net, Shape{1, s.nz}).macs;
}

double teachers_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  double all = 0;
  for (const TeacherConfig& t : c.teachers) all += model_macs(shape, t.model);
  return all;
}

// A student's step in forwards, and what its images are made by; a pass back through the networks for
// the regions that speak for a class costs another one.
double looks_back(const DistillConfig& d) { return d.loss.at("grad_cam") > 0 ? 1 : 0; }
bool draws_images(const DistillConfig& d) { return d.replay != "pool"; }

// Teachers that learn their weights see all images so far in every round but the first.
double weighed_images(const RunConfig& c) {
  const int64_t rounds = c.rounds.weight_step > 0 ? c.distill.epochs * c.rounds.per_epoch : 0;
  double all = 0;
  for (int64_t r = 1; r < rounds; ++r)
    all += count((c.synthesis.batches + (r + 1) * c.rounds.batches) * c.synthesis.batch_size);
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

PlannedMacs planned_macs(const RunConfig& c, const nn::ModelSpec& shape) {
  const SynthesisConfig& s = c.synthesis;
  const DistillConfig& d = c.distill;
  const double all = teachers_macs(c, shape), generator = generator_macs(s, shape),
               teachers = count(std::ssize(c.teachers)), students = count(std::ssize(c.students));
  const double drawn = s.teachers_per_step > 0 ? count(s.teachers_per_step) / teachers : 1.0;
  // The local view passes the teachers whose features are contrasted.
  double local = 0;
  if (s.loss.at("cr") > 0)
    local = s.cr_mode == CrMode::first ? model_macs(shape, c.teachers[0].model) : all;
  const bool judged = std::ranges::any_of(inversion_terms(), [&](const LossTermRow& row) {
    return row.needs_student && s.loss.at(row.key) > 0;
  });
  const double in_rounds = count(d.epochs * c.rounds.per_epoch * c.rounds.batches);
  const double batches = (is_given(s.source) ? 0 : count(s.batches)) + students * in_rounds;
  PlannedMacs out;
  out.per_g_step = count(s.batch_size) * (batches * (3 * generator + 2 * drawn * (all + local)) +
                                          (judged ? 2 * in_rounds * students_macs(c, shape) : 0));

  const int64_t pool = s.batches * s.batch_size;
  const int64_t pass = std::max<int64_t>(1, pool / d.batch_size);
  const int64_t steps = d.epochs * (d.steps_per_epoch > 0 ? d.steps_per_epoch : pass);
  const int64_t passes = (steps + pass - 1) / pass;
  const int64_t asked = d.views > 0 ? std::min(d.views, passes) * pool : steps * d.batch_size;
  const double back = looks_back(d);
  out.rest = students * ((1 + back) * count(asked) + weighed_images(c)) * all +
             (3 + back) * count(steps * d.batch_size) * students_macs(c, shape);
  if (draws_images(d)) out.rest += students * count(steps * d.batch_size) * generator;
  return out;
}

double counted_macs(const RunConfig& c, const nn::ModelSpec& shape, const nlohmann::json& metrics) {
  const auto value = [&metrics](const char* key) { return metrics.value(key, 0.0); };
  const double students = std::max(1.0, count(std::ssize(c.students)));
  const double generator = generator_macs(c.synthesis, shape);
  const double shown = value("kd_steps") * count(c.distill.batch_size);
  return 3 * value("generator_steps") * count(c.synthesis.batch_size) * generator +
         2 * value("teacher_forward_macs") + value("kd_forward_macs") +
         (3 + looks_back(c.distill)) * shown / students * students_macs(c, shape) +
         (draws_images(c.distill) ? shown * generator : 0);
}

}  // namespace mtcki
