// The terminal: lines on stderr that do not collide with the progress bar, and their copy in
// log.txt.
#pragma once

#include <string>
#include <string_view>

namespace mtcki::console {

enum class Level { info, warning, error };

// One line, printable() (newlines in `text` become continuation lines). Thread-safe.
void line(Level level, const std::string& text);
inline void info(const std::string& text) { line(Level::info, text); }
inline void warn(const std::string& text) { line(Level::warning, text); }
// Control characters, bytes that are no UTF-8 and marks that turn the direction of writing become
// \\xNN, and so does a newline unless two spaces follow, as in the lists of our own messages. What a
// file holds can then neither steer a terminal nor pass for a line of ours.
std::string printable(std::string_view text);

// No info lines on the terminal (log.txt still gets them).
void set_quiet(bool quiet);
bool quiet();
void set_silent(bool silent);  // nothing at all on the terminal: for tests
// Appends every line to this file as well; "" ends that.
void set_log_file(const std::string& path);

// True when stderr is a terminal that can redraw a line; colour also needs NO_COLOR to be unset.
bool is_terminal();
bool has_color();
int width(int file = 2);  // columns of the terminal there (stderr); 80 when there is none
// Shows `text` as the last, redrawn line of a terminal; "" removes it.
void status(const std::string& text);

}  // namespace mtcki::console
