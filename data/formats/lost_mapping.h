// What becomes of a program whose mapped file is cut short, or whose disk fails, while it is read.
#pragma once

namespace mtcki::data {

// From now on such a program says which file it was and ends with the exit code of damaged data,
// instead of dying of SIGBUS without a word.
void report_lost_mappings();

}  // namespace mtcki::data
