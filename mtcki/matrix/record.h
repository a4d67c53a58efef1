// The record of a matrix: what its cells measured, as one small JSON file that can be kept, and from
// which every table is made.
#pragma once

#include <nlohmann/json.hpp>

#include "mtcki/matrix/matrix.h"

namespace mtcki {

// {"matrix", "against": [label], "published": [...], "machine": {...}, "git", "date",
//  "cells": [{"cell", "method", "teachers", "data", "seed", "status", "reason",
//             "images", "macs", "seconds": {...}, "metrics": {...},
//             "students": [{"student", "top1", "top1_best", "curve": [[macs, top1]]}]}]}
// in the order of the matrix; method: its label. What a cell does not have is left out.
nlohmann::json matrix_record(const Matrix& matrix);

// Records of one matrix that machines without a common folder have worked on, as one: each cell from
// the record that has it finished. UsageError when they are not of one matrix, or when two of them
// have finished the same cell.
nlohmann::json joined_records(const std::vector<nlohmann::json>& records);

}  // namespace mtcki
