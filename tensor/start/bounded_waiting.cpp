// For programs that are to behave well on a busy machine without a line of their own: the examples
// and the course link this object (target mtcki_bounded_waiting). glibc hands constructors what
// main() gets.
#include "tensor/parallel.h"

[[gnu::constructor]] static void start(int, char** argv) { mtcki::bound_waiting(argv); }
