// What a forward pass leaves behind for its backward: the recorded graph as Graphviz text (pipe it
// into `dot -Tsvg`), and the bytes that it keeps. A frozen layer keeps its weights only, a trained
// one its input as well.
//
// Expect: trained keeps 464 bytes, frozen 384 bytes
#include <cstdio>

#include "autograd/functions.h"
#include "tensor/context.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

// Two linear layers with a ReLU between them; the loss wants the class of every row.
Variable network(const Variable& x, bool trained) {
  const Rng rng{0, rng_stream("example"), 0};
  const Variable w1(randn({8, 4}, rng.at(1)), trained), b1(Tensor::zeros({8}), trained);
  const Variable w2(randn({3, 8}, rng.at(2)), trained), b2(Tensor::zeros({3}), trained);
  Variable h;
  {
    const ContextScope scope(ContextScope::Kind::module, "hidden");
    h = relu(linear(x, w1, b1));
  }
  const ContextScope scope(ContextScope::Kind::module, "classifier");
  return linear(h, w2, b2);
}

}  // namespace

int main() {
  const Rng rng{0, rng_stream("example"), 0};
  const Variable x(randn({5, 4}, rng), true);
  const Variable trained = mean(network(x, true)), frozen = mean(network(x, false));
  std::printf("%s", graph_dot(trained).c_str());
  std::printf("trained keeps %zu bytes, frozen %zu bytes\n", saved_bytes(trained),
              saved_bytes(frozen));
  return 0;
}
