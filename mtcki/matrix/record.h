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

}  // namespace mtcki
