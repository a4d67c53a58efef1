#include "tensor/parallel.h"

namespace mtcki {

namespace {
int& thread_setting() {
  static int threads = omp_get_max_threads();
  return threads;
}
}  // namespace

void set_num_threads(int threads) {
  thread_setting() = threads > 0 ? threads : omp_get_num_procs();
  omp_set_num_threads(thread_setting());  // oneDNN and other users of OpenMP follow
}

int num_threads() { return thread_setting(); }

}  // namespace mtcki
