// What the configuration knows of the terms of a loss. A term is one row of a table: the key of its
// weight, default, help and formula come from there, and so do validation and documentation. The
// tables themselves stand beside the formulas (losses/terms.cpp, losses/student_terms.cpp), which use
// the configuration in turn.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mtcki {

template <class Term, class Context>
struct LossRow {
  const char* key;   // of its weight: synthesis.<key>, distill.<key>
  double weight;     // when nothing is configured; 0: off
  const char* name;  // in the log and in messages
  const char* help;  // of the key
  const char* formula;
  std::function<std::unique_ptr<Term>(const Context&)> make;
  bool needs_student = false;  // on images: it counts only while a student is there
};

class LossTerm;
struct LossTermContext;  // losses/term.h
using LossTermRow = LossRow<LossTerm, LossTermContext>;
// Every term of the loss on synthetic images, in the order in which they are added.
const std::vector<LossTermRow>& inversion_terms();

class StudentTerm;
struct StudentTermContext;  // losses/student_term.h
using StudentTermRow = LossRow<StudentTerm, StudentTermContext>;
// Every term of the loss on the student, likewise.
const std::vector<StudentTermRow>& student_terms();

// The weight of every row of a table.
class LossWeights {
 public:
  template <class Row>
  explicit LossWeights(const std::vector<Row>& rows) {
    for (const Row& row : rows) weights_.emplace_back(row.key, row.weight);
  }
  double& operator[](const std::string& key);  // Error when no row has the key
  double at(const std::string& key) const;     // likewise

 private:
  std::vector<std::pair<std::string, double>> weights_;
};

}  // namespace mtcki
