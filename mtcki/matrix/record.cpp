#include "mtcki/matrix/record.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/formats/json_file.h"
#include "mtcki/log/metrics_file.h"
#include "mtcki/matrix/cost.h"
#include "mtcki/matrix/work.h"
#include "tensor/error.h"

namespace mtcki {

using nlohmann::json;

namespace {

// Six digits: a record is to be read, and compared.
double rounded(double v) { return std::stod(fmt::format("{:.6g}", v)); }

// Tests of a student while it trained, over the cost of the synthesis and of its share of the
// distillation so far.
json curve_of(const std::vector<metrics_file::Line>& lines, const std::string& student,
              double synthesis, double distillation) {
  std::vector<std::pair<int64_t, double>> tests;
  for (const auto& line : lines)
    if (line.stage == "student/" + student && line.kind == "eval")
      for (const auto& [name, value] : line.values)
        if (name == "top1") tests.emplace_back(line.step, value);
  json curve = json::array();
  for (const auto& [step, top1] : tests) {
    const double part = static_cast<double>(step) / static_cast<double>(tests.back().first);
    curve.push_back({rounded(synthesis + part * distillation), rounded(top1)});
  }
  return curve;
}

void add_run(const MatrixJob& job, json* cell) {
  const std::string folder = job.folder();
  const json result = data::read_sealed_json(folder + "/result.json");
  const json synth = data::read_sealed_json(folder + "/synth/manifest.json");
  if (!result.is_object() || !synth.is_object())
    throw DataError(folder + ": result.json or synth/manifest.json is missing or damaged");
  json& out = *cell;
  nn::ModelSpec shape;
  shape.in_channels = synth.at("shape").at(0);
  shape.image_size = synth.at("shape").at(1);
  shape.num_classes = synth.at("num_classes");
  json metrics = result.at("metrics"), of_synthesis = metrics;
  of_synthesis.erase("kd_steps");
  of_synthesis.erase("kd_forward_macs");
  const double all = counted_macs(job.config, shape, metrics),
               synthesis = counted_macs(job.config, shape, of_synthesis);
  const double students = std::max(1.0, static_cast<double>(job.config.students.size()));
  out["images"] = result.at("synthetic").at("images");
  out["macs"] = rounded(all);
  for (auto& [name, value] : metrics.items()) value = rounded(value.get<double>());
  out["metrics"] = metrics;
  out["seconds"] = result.at("seconds");
  const auto lines = metrics_file::read(folder + "/metrics.jsonl");
  for (const json& s : result.at("students"))
    out["students"].push_back(
        {{"student", s.at("name")},
         {"top1", s.at("top1")},
         {"top1_best", s.at("top1_best")},
         {"curve", curve_of(lines, s.at("name"), synthesis, (all - synthesis) / students)}});
}

// The networks that were trained on the real images.
void add_scratch(const MatrixJob& job, json* cell) {
  double seconds = 0;
  for (const TeacherConfig& t : job.config.teachers) {
    const json done = data::read_sealed_json(job.folder() + "/teachers/" + t.name + "/done.json");
    if (!done.is_object()) throw DataError(job.folder() + ": a teacher's done.json is damaged");
    (*cell)["students"].push_back({{"student", t.name}, {"top1", rounded(done.at("top1"))}});
    seconds += done.at("seconds").get<double>();
  }
  (*cell)["seconds"] = {{"students", rounded(seconds)}};
}

}  // namespace

json matrix_record(const Matrix& m) {
  json record = {{"matrix", m.name}, {"against", json::array()}, {"cells", json::array()}};
  for (const std::string& name : m.against)
    for (const MatrixMethod& method : m.methods)
      if (method.name == name) record["against"].push_back(method.label);
  record["published"] = m.published;
  for (json& p : record["published"])
    for (const MatrixMethod& method : m.methods)
      if (method.name == p["method"]) p["method"] = method.label;
  static const char* const words[] = {"open", "running", "failed", "finished"};
  for (size_t i = 0; i < m.jobs.size(); ++i) {
    const MatrixJob& job = m.jobs[i];
    if (!job.is_cell()) continue;
    const JobState s = job_state(m, i);
    json cell = {
        {"cell", job.name},         {"method", m.methods[static_cast<size_t>(job.method)].label},
        {"teachers", job.teachers}, {"data", job.data},
        {"seed", job.config.seed},  {"status", words[s.kind]}};
    if (s.kind == JobState::failed) cell["reason"] = s.text;
    if (s.kind == JobState::finished) {
      try {
        job.stage == "train" ? add_scratch(job, &cell) : add_run(job, &cell);
      } catch (const json::exception& e) {
        throw DataError(str(job.folder(), ": not what a run writes (", e.what(), ")"));
      }
      const json manifest = data::read_sealed_json(job.folder() + "/manifest.json");
      if (manifest.is_object()) {
        record["machine"] = manifest.at("machine");
        record["machine"]["threads"] = manifest.at("threads");
        record["git"] = manifest.at("project").at("git");
        record["date"] = manifest.at("attempts").back().at("end");
      }
    }
    record["cells"].push_back(cell);
  }
  return record;
}

}  // namespace mtcki
