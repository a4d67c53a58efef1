// A run without a real image (data.name = "none"): what a data set would have said of itself, and
// what students are measured on instead.
#pragma once

#include <string>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"

namespace mtcki {

// A set without images, u8 [0,C,H,W]: its shape and number of classes from the configuration, its
// normalisation that of the first teacher, the names of its classes those of the first teacher
// whose file names them (else 0, 1, ..., and no class_ids). DataError and UsageError as
// known_normalization(), and where a file cannot be read.
data::ImageSet set_without_images(const RunConfig& config);
// A teacher's own, from the configuration or its file's metadata. UsageError when neither has it:
// no data set stands in here.
data::Normalization known_normalization(const TeacherConfig& teacher,
                                        const data::Normalization& of_file);

// held: held_out_images() of the pool, drawn by the seed; otherwise all others, which students
// learn from. Both in the order of the pool.
data::ImageSet pool_part(const data::ImageSet& pool, const RunConfig& config, bool held);

// What was measured and what was not, for log, table and report. "" for a run on a real set.
std::string measurement_note(const RunConfig& config);

}  // namespace mtcki
