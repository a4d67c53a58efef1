// OpenMP loops with a minimum grain. Static schedule: the split depends only on the range and the
// number of threads, so results repeat for a given thread count.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace mtcki {

// 0: OMP_NUM_THREADS, or without it all cores that this process may use.
void set_num_threads(int threads);
int num_threads();

// For the first line of main(). libgomp's threads wait for each other by spinning for milliseconds,
// which on a busy machine keeps the awaited thread off its core, and it reads GOMP_SPINCOUNT only
// while it is loaded. So the program is started anew, once, with a short spin: `argv` as main() got
// it. Returns where the user chose (GOMP_SPINCOUNT, OMP_WAIT_POLICY) or a start is not possible.
// Asks the scheduler for turns of 0.1 ms, too (Linux 6.12 and later), so that a thread which is
// waited for soon has one. What is computed does not change.
void bound_waiting(char* const* argv);

// f(begin, end) on disjoint chunks that cover [0, n); chunks are no smaller than `grain`. What a
// chunk throws (scratch memory that is refused) reaches the caller when all have ended.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  const int64_t most =
      std::min<int64_t>(num_threads(), (n + grain - 1) / std::max<int64_t>(1, grain));
  if (most <= 1 || omp_in_parallel()) {
    f(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(static_cast <int>(most))
  {
    const int64_t t = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t begin = n * t / count, end = n * (t + 1) / count;
    try {
      if (begin < end) f(begin, end);
    } catch (...) {
#pragma omp critical(mtcki_parallel_for_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace mtcki
