// A matrix: methods x teacher sets x data x seeds. Every cell is a run with all of its students in
// it, so that they share one synthetic set; teachers, held-out classifiers and sets that are equal
// in several cells are jobs of their own, done once. docs/matrix.md has the file's keys.
//
//   OUT/NAME/cells/METHOD[.TEACHERS][.DATA].sSEED/   folders of runs
//   OUT/NAME/shared/teacher-NAME-SHA/, classifier-SHA/, set-NAME-SHA/
//   OUT/NAME/claims/                                 claim.h
//   OUT/NAME/table.md, table.csv, table.html, record.json
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/config/config.h"

namespace mtcki {

struct MatrixMethod {
  std::string name, label;
  // run: an ordinary run. alone: each teacher is inverted alone with its share of the batches, and
  // the students learn from the joined sets and from all teachers. scratch: the students' networks
  // are trained on the real images, as [train] says.
  std::string kind = "run";
  std::vector<std::string> config;
  std::vector<std::string> teachers;  // those of the configuration that it uses; empty: all
  std::string budget;  // the method whose multiply-accumulates g_steps is chosen to meet; or empty
};

// A set of teachers, or of data.
struct MatrixVariant {
  std::string name;
  std::vector<std::string> config;
};

struct MatrixJob {
  struct Use {
    size_t job = 0;          // of Matrix::jobs, finished before
    std::string stage = {};  // "teachers/vgg8", taken over into this job's folder; or empty
  };
  std::string name;   // of its folder, which config.out and config.name say too
  std::string stage;  // of run_job()
  RunConfig config;
  std::vector<Use> uses = {};
  // Of a cell only:
  int method = -1;  // of Matrix::methods
  std::string teachers = {}, data = {};
  bool is_cell() const { return method >= 0; }
  std::string folder() const { return config.out + "/" + config.name; }
};

struct Matrix {
  std::string name, folder;
  std::vector<MatrixMethod> methods;
  std::vector<MatrixVariant> teachers, data;
  std::vector<uint64_t> seeds;
  std::vector<std::string> against;  // methods that the others are compared with
  nlohmann::json published = nlohmann::json::array();
  // Configuration files and KEY=VALUE of all cells, before and after those of the axes.
  std::vector<std::string> base, last;
  std::vector<MatrixJob> jobs;  // what a job uses comes before it

  std::string claims() const { return folder + "/claims"; }
};

// From a file, then configuration files and KEY=VALUE that come after those of the methods, in all
// cells; name=, out= and seeds=[...] are the matrix's. UsageError for what the file says wrongly,
// and for a cell whose configuration is refused.
Matrix load_matrix(const std::vector<std::string>& inputs);
// The same without its jobs: only what the file says. Configuration files are looked for in its
// folder first.
Matrix read_matrix_file(const std::vector<std::string>& inputs);

}  // namespace mtcki
