#include "tensor/parallel.h"

namespace mtcki {

namespace {
// Asked before the first omp_set_num_threads: what OpenMP itself chose.
int default_threads() {
  static const int threads = omp_get_max_threads();
  return threads;
}
int& thread_setting() {
  static int threads = default_threads();
  return threads;
}
}  // namespace

void set_num_threads(int threads) {
  const int unset = default_threads();
  thread_setting() = threads > 0 ? threads : unset;
  omp_set_num_threads(thread_setting());  // oneDNN and other users of OpenMP follow
}

int num_threads() { return thread_setting(); }

}  // namespace mtcki
