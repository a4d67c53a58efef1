#include <algorithm>

#include "tensor/ops/softmax_kernels.h"
#include "tensor/parallel.h"

#define MTCKI_ROWS_NAME(kernel) kernel##_cpu
#define MTCKI_ROWS_DISPATCH MTCKI_DISPATCH_FLOAT

namespace mtcki {
namespace {

template <class T>
using compute_t = T;

// A row is one thread's: what the threads of rows.cuh exchange is here already.
struct OneThread {
  int64_t index() const { return 0; }
  int64_t count() const { return 1; }
  template <class V>
  V sum(V v) const {
    return v;
  }
  template <class V>
  V largest(V v) const {
    return v;
  }
};

template <class Body>
void for_rows(int64_t rows, int64_t length, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, length));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, OneThread{});
  });
}

}  // namespace
}  // namespace mtcki

#include "tensor/ops/softmax_rows.h"
