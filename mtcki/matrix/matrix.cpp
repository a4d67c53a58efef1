#include "mtcki/matrix/matrix.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "mtcki/config/table_names.h"
#include "mtcki/matrix/cost.h"
#include "mtcki/run/context.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki {

namespace {

template <class T>
std::vector<std::string> names_of(const std::vector<T>& list) {
  std::vector<std::string> out;
  for (const T& e : list) out.push_back(e.name);
  return out;
}

// Its hashes of stages; nothing is computed, so that no device is needed.
RunContext context_of(RunConfig config) {
  config.device = "cpu";
  return RunContext(config, "");
}

// Fills Matrix::jobs.
class Expansion {
 public:
  explicit Expansion(Matrix* matrix) : m_(*matrix) {}

  void add_cell(int number, const MatrixVariant& teachers, const MatrixVariant& data,
                uint64_t seed) {
    const MatrixMethod& method = m_.methods[static_cast<size_t>(number)];
    MatrixJob cell;
    cell.name = method.name;
    for (const std::string& part : {teachers.name, data.name})
      if (!part.empty()) cell.name += "." + part;
    cell.name += str(".s", seed);
    cell.method = number;
    cell.teachers = teachers.name;
    cell.data = data.name;
    try {
      fill(&cell, method, teachers, data, seed);
    } catch (const UsageError& e) {
      throw UsageError(str("cell ", cell.name, ": ", e.what()));
    }
    m_.jobs.push_back(std::move(cell));
  }

 private:
  void fill(MatrixJob* cell, const MatrixMethod& method, const MatrixVariant& teachers,
            const MatrixVariant& data, uint64_t seed) {
    RunConfig& c = cell->config;
    c = config_of(method, teachers, data, seed);
    if (c.students.empty()) throw UsageError("students: none given, so there is nothing to show");
    if (c.data.is_none())
      throw UsageError("data.name: none has no test images, so there is nothing to compare");
    if (method.kind == "scratch") {
      cell->stage = "train";
      c.teachers.clear();
      for (const StudentConfig& s : c.students) {
        TeacherConfig t;
        t.name = s.name;
        t.model = s.model;
        c.teachers.push_back(t);
      }
      c.students.clear();
    } else {
      if (!method.budget.empty()) meet_budget(&c, method, teachers, data, seed);
      share_teachers(c, &cell->uses);
      const MetricsConfig& metrics = c.metrics;
      if (!metrics.classifier_model.empty() && metrics.classifier_weights.empty())
        cell->uses.push_back(
            {shared("classifier-", context_of(c).classifier_sha(), "classifier", c),
             "metrics/classifier"});
      if (method.kind == "alone") invert_alone(cell);
    }
    c.out = m_.folder + "/cells";
    c.name = cell->name;
    validate(c);
  }

  RunConfig config_of(const MatrixMethod& method, const MatrixVariant& teachers,
                      const MatrixVariant& data, uint64_t seed) const {
    std::vector<std::string> inputs = m_.base;
    for (const std::vector<std::string>& more :
         {data.config, teachers.config, method.config, m_.last})
      inputs.insert(inputs.end(), more.begin(), more.end());
    inputs.push_back(str("seed=", seed));
    RunConfig c = load_config(inputs, {});
    if (method.teachers.empty()) return c;
    std::vector<TeacherConfig> chosen;
    for (const std::string& name : method.teachers) {
      const auto t =
          std::ranges::find_if(c.teachers, [&](const TeacherConfig& x) { return x.name == name; });
      if (t == c.teachers.end())
        throw UsageError(
            str("no teacher is called \"", name, "\"", did_you_mean(name, names_of(c.teachers))));
      chosen.push_back(*t);
    }
    c.teachers = chosen;
    c.synthesis.teachers_per_step = std::min(c.synthesis.teachers_per_step, std::ssize(chosen));
    return c;
  }

  // The generator steps per batch with which the whole job costs as much as another method's; with
  // fresh replay, where a step of the generator belongs to some of the student's, the epochs.
  void meet_budget(RunConfig* c, const MatrixMethod& method, const MatrixVariant& teachers,
                   const MatrixVariant& data, uint64_t seed) {
    const auto other = std::ranges::find_if(
        m_.methods, [&](const MatrixMethod& x) { return x.name == method.budget; });
    const RunConfig ours = config_of(*other, teachers, data, seed);
    if (ours.synthesis.source == "sets")
      throw UsageError(
          str("budget: what the sets of ", other->name, " had cost is not known here"));
    if (is_given(c->synthesis.source))
      throw UsageError("budget: given images take no generator steps that could be chosen");
    const nn::ModelSpec& shape = shape_of(*c);
    const double whole = planned_macs(ours, shape).whole(ours);
    const bool fresh = c->distill.replay == "fresh";
    int64_t& chosen = fresh ? c->distill.epochs : c->synthesis.g_steps;
    const auto cost = [&](int64_t value) {  // linear in what is chosen
      chosen = value;
      const PlannedMacs mine = planned_macs(*c, shape);
      if (method.kind != "alone") return mine.whole(*c);
      double all = mine.rest;
      for (const RunConfig& one : alone(*c))
        all += planned_macs(one, shape).per_g_step * static_cast<double>(value);
      return all;
    };
    const double none = cost(0), value = (whole - none) / (cost(1) - none);
    if (value < 1)
      throw UsageError(str("budget: the whole of ", other->name, " costs less than ",
                           fresh ? "one epoch" : "this distillation and one step per batch"));
    chosen = std::llround(value);
  }

  // Channels, size and classes of the images.
  const nn::ModelSpec& shape_of(const RunConfig& c) {
    std::optional<nn::ModelSpec>& known = shapes_[config_sha256(c, {"data"}) + c.data.dir];
    if (!known) known = context_of(c).spec("");
    return *known;
  }

  // Each teacher by itself, with its share of the batches.
  static std::vector<RunConfig> alone(const RunConfig& c) {
    std::vector<RunConfig> out;
    const auto teachers = std::ssize(c.teachers);
    for (int64_t i = 0; i < teachers; ++i) {
      RunConfig one = c;
      one.teachers = {c.teachers[static_cast<size_t>(i)]};
      one.synthesis.batches = c.synthesis.batches / teachers + (i < c.synthesis.batches % teachers);
      one.synthesis.teachers_per_step = 0;
      if (one.synthesis.batches > 0) out.push_back(one);
    }
    return out;
  }

  void invert_alone(MatrixJob* cell) {
    SynthesisConfig& s = cell->config.synthesis;
    for (const RunConfig& one : alone(cell->config)) {
      const std::string name = str("set-", one.teachers[0].name, "-");
      const size_t job = shared(name, context_of(one).synthesis_sha(), "invert", one);
      cell->uses.push_back({job, ""});
      s.from.push_back("../../shared/" + m_.jobs[job].name);
    }
    s.source = "sets";
  }

  void share_teachers(const RunConfig& c, std::vector<MatrixJob::Use>* uses) {
    const RunContext context = context_of(c);
    for (const TeacherConfig& t : c.teachers) {
      if (!t.weights.empty()) continue;  // read, not trained
      RunConfig one = c;
      one.teachers = {t};
      one.teachers[0].weight = 1;
      const size_t job = shared("teacher-" + t.name + "-", context.teacher_sha(t), "train", one);
      uses->push_back({job, "teachers/" + t.name});
    }
  }

  // The job of this name, which is added when there is none yet.
  size_t shared(const std::string& prefix, const std::string& sha, const char* stage,
                RunConfig config) {
    MatrixJob job;
    job.name = prefix + sha.substr(0, 12);
    for (size_t i = 0; i < m_.jobs.size(); ++i)
      if (m_.jobs[i].name == job.name) return i;
    job.stage = stage;
    config.students.clear();
    if (job.stage == "invert") share_teachers(config, &job.uses);
    config.out = m_.folder + "/shared";
    config.name = job.name;
    job.config = config;
    m_.jobs.push_back(job);
    return m_.jobs.size() - 1;
  }

  Matrix& m_;
  std::map<std::string, std::optional<nn::ModelSpec>> shapes_;
};

void check_names(const Matrix& m) {
  const std::vector<std::string> methods = names_of(m.methods);
  const auto known = [&](const std::string& name, const std::string& where) {
    if (std::ranges::find(methods, name) == methods.end())
      throw UsageError(
          str(where, ": no method is called \"", name, "\"", did_you_mean(name, methods)));
  };
  for (const auto& list : {methods, names_of(m.teachers), names_of(m.data)})
    if (std::set<std::string>(list.begin(), list.end()).size() != list.size())
      throw UsageError(str("matrix ", m.name, ": two methods, teacher sets or data have one name"));
  if (std::set<uint64_t>(m.seeds.begin(), m.seeds.end()).size() != m.seeds.size())
    throw UsageError(str("matrix ", m.name, ": one seed twice"));
  for (const MatrixMethod& method : m.methods) {
    if (method.budget.empty()) continue;
    if (method.kind == "scratch")
      throw UsageError(
          str("methods.", method.name, ".budget: kind scratch has no generator steps"));
    known(method.budget, "methods." + method.name + ".budget");
    for (const MatrixMethod& other : m.methods)
      if (other.name == method.budget && (!other.budget.empty() || other.kind != "run"))
        throw UsageError(str("methods.", method.name, ".budget: ", other.name,
                             " has no budget of its own to be met"));
  }
  for (const std::string& name : m.against) known(name, "against");
  for (const auto& p : m.published) known(p.at("method"), "published");
}

}  // namespace

Matrix load_matrix(const std::vector<std::string>& inputs) {
  Matrix m = read_matrix_file(inputs);
  check_names(m);
  Expansion expansion(&m);
  // All methods of one seed before the next seed: a table to look at comes early.
  for (const uint64_t seed : m.seeds)
    for (const MatrixVariant& data : m.data)
      for (const MatrixVariant& teachers : m.teachers)
        for (size_t i = 0; i < m.methods.size(); ++i)
          expansion.add_cell(static_cast<int>(i), teachers, data, seed);
  return m;
}

}  // namespace mtcki
