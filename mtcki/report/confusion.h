// The report's confusion matrices.
#pragma once

#include <string>

namespace mtcki {

// Of every student and teacher of the run in `folder` that has one (mtcki/evaluation/confusion.h), students
// first: a table with coloured cells up to 20 classes, a picture and the most frequent confusions
// beyond. Those that would make it longer than `bytes` are left out, and the text says so. Empty
// when there are none.
std::string confusion_section(const std::string& folder, size_t bytes);

}  // namespace mtcki
