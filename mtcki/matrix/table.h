// Tables of a record: a line per method, teacher set, data and student, over the seeds.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/matrix/matrix.h"

namespace mtcki {

// What the lines of all forms show.
struct MatrixTable {
  struct Line {
    std::string method, teachers, data, student;
    bool is(const std::string& of, const Line& like) const {  // the line of this method beside it
      return method == of && teachers == like.teachers && data == like.data &&
             student == like.student;
    }
    std::vector<size_t> cells;  // of record["cells"], finished ones only
    std::vector<double> top1;   // of these
  };
  std::vector<Line> lines;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;  // text of each line, under head
  size_t text_columns = 2;                     // the first ones; the others are numbers
  std::vector<std::string> notes;              // cells that failed, and what is not there yet
};
MatrixTable summarise(const nlohmann::json& record);

// format: text or markdown (the same, aligned), csv (a row per cell and student, not per line), json (the record itself)
// or html: with accuracy over counted cost and, where `folder` of the matrix has them, images of the
// same classes side by side. UsageError for another format, DataError for what is no record.
std::string matrix_table(const nlohmann::json& record, const std::string& format,
                         const std::string& folder = "");
std::string matrix_html(const nlohmann::json& record, const std::string& folder);
// table.md, table.csv, table.html and record.json in the folder of the matrix.
void write_tables(const Matrix& matrix);

}  // namespace mtcki
