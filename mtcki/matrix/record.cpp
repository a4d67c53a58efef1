#include "mtcki/matrix/record.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/formats/json_file.h"
#include "data/formats/state_file.h"
#include "mtcki/log/metrics_file.h"
#include "mtcki/matrix/cost.h"
#include "mtcki/matrix/work.h"
#include "mtcki/networks/model_file.h"
#include "tensor/error.h"

namespace mtcki {

using nlohmann::json;

namespace {

// Six digits: a record is to be read, and compared.
double rounded(double v) { return std::stod(fmt::format("{:.6g}", v)); }

// Adds where cells were made: what is not the same in all is listed, as cells may be of several
// machines and versions, which is to be seen.
void add_origin(const json& machine, const std::string& git, const std::string& date,
                json* record) {
  const auto both = [](const std::string& all, const std::string& one) {
    if (all.empty() || all.find(one) != std::string::npos) return all.empty() ? one : all;
    return all + ", " + one;
  };
  const std::string cpu = both(record->value("machine", json::object()).value("cpu", ""),
                               machine.at("cpu").get<std::string>());
  (*record)["machine"] = machine;
  (*record)["machine"]["cpu"] = cpu;
  (*record)["git"] = both(record->value("git", ""), git);
  (*record)["date"] = std::max(record->value("date", ""), date);
}

// Tests of a student while it trained, over the cost of what was made before it and, evenly over its
// steps, of everything after that.
json curve_of(const std::vector<metrics_file::Line>& lines, const std::string& student,
              double before, double after) {
  std::vector<std::pair<int64_t, double>> tests;
  for (const auto& line : lines)
    if (line.stage == "student/" + student && line.kind == "eval")
      for (const auto& [name, value] : line.values)
        if (name == "top1") tests.emplace_back(line.step, value);
  json curve = json::array();
  for (const auto& [step, top1] : tests) {
    const double part = static_cast<double>(step) / static_cast<double>(tests.back().first);
    curve.push_back({rounded(before + part * after), rounded(top1)});
  }
  return curve;
}

void add_run(const Matrix& m, const MatrixJob& job, json* cell) {
  const std::string folder = job.folder();
  const json result = data::read_sealed_json(folder + "/result.json");
  if (!result.is_object() || result.value("students", json::array()).empty())
    throw DataError(folder + ": result.json is missing or damaged");
  const std::string student = result.at("students").at(0).at("name");
  const std::string weights = folder + "/students/" + student + "/model.safetensors";
  const nn::ModelSpec shape =
      read_model_card(weights, data::read_state_file(weights).metadata).spec;
  RunConfig config = job.config;
  for (const MatrixJob::Use& use : job.uses)  // joined sets are what their own runs made
    if (use.stage.empty()) config.synthesis.source = m.jobs[use.job].config.synthesis.source;
  json& out = *cell;
  json metrics = result.at("metrics");
  const double all = counted_macs(config, shape, metrics);
  double before = 0;
  if (const json done = data::read_sealed_json(folder + "/synth/done.json"); done.is_object())
    before = counted_macs(config, shape,
                          {{"generator_steps", done.at("budget").at("generator_steps")},
                           {"teacher_forward_macs", done.at("budget").at("forward_macs")}});
  const double students = std::max(1.0, static_cast<double>(job.config.students.size()));
  if (result.contains("synthetic")) out["images"] = result["synthetic"].at("images");
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
         {"curve", curve_of(lines, s.at("name"), before, (all - before) / students)}});
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
  for (size_t i = 0; i < m.jobs.size(); ++i) {
    const MatrixJob& job = m.jobs[i];
    if (!job.is_cell()) continue;
    const JobState s = job_state(m, i);
    json cell = {
        {"cell", job.name},         {"method", m.methods[static_cast<size_t>(job.method)].label},
        {"teachers", job.teachers}, {"data", job.data},
        {"seed", job.config.seed},  {"status", s.word()}};
    if (s.kind == JobState::failed) cell["reason"] = s.text;
    if (s.kind == JobState::finished) {
      try {
        job.stage == "train" ? add_scratch(job, &cell) : add_run(m, job, &cell);
      } catch (const json::exception& e) {
        throw DataError(str(job.folder(), ": not what a run writes (", e.what(), ")"));
      }
      const json manifest = data::read_sealed_json(job.folder() + "/manifest.json");
      if (manifest.is_object()) {
        json machine = manifest.at("machine");
        machine["threads"] = manifest.at("threads");
        add_origin(machine, manifest.at("project").at("git"),
                   manifest.at("attempts").back().at("end"), &record);
      }
    }
    record["cells"].push_back(cell);
  }
  return record;
}

json joined_records(const std::vector<json>& records) {
  json all;
  try {
    for (const json& record : records) {
      if (all.is_null()) {
        all = record;
        continue;
      }
      for (const char* key : {"matrix", "against", "published"})
        if (record.at(key) != all.at(key))
          throw UsageError(str("records of different matrices cannot be joined: \"", key, "\" is ",
                               all.at(key).dump(), " in one and ", record.at(key).dump(),
                               " in another"));
      for (const json& cell : record.at("cells")) {
        const auto same =
            std::find_if(all["cells"].begin(), all["cells"].end(),
                         [&](const json& c) { return c.at("cell") == cell.at("cell"); });
        if (same == all["cells"].end()) {
          all["cells"].push_back(cell);
        } else if (cell.at("status") == "finished") {
          if (same->at("status") == "finished" && *same != cell)
            throw UsageError(str("two records have finished the cell ",
                                 cell.at("cell").get<std::string>(), ", with different results"));
          *same = cell;
        }
      }
      if (record.contains("machine"))
        add_origin(record["machine"], record.at("git"), record.at("date"), &all);
    }
  } catch (const json::exception& e) {
    throw DataError(str("not the record of a matrix (", e.what(), ")"));
  }
  return all;
}

}  // namespace mtcki
