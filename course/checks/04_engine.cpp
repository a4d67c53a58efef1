// Judges exercise 4: gradients, and that every node ran once, when its gradient was complete.
#include <cmath>

#include "course/checks/judge.h"

namespace mtcki::course {

namespace {

NodePtr make(double value, std::vector<NodePtr> from = {}, std::vector<double> slopes = {}) {
  static int64_t count = 0;
  const auto node = std::make_shared<Node>();
  node->value = value;
  node->number = ++count;
  node->from = std::move(from);
  node->slopes = std::move(slopes);
  return node;
}
NodePtr plus(const NodePtr& a, const NodePtr& b) {
  return make(a->value + b->value, {a, b}, {1, 1});
}
NodePtr times(const NodePtr& a, const NodePtr& b) {
  return make(a->value * b->value, {a, b}, {b->value, a->value});
}

void check(Judge& judge) {
  {  // e = (a b + c)²
    const NodePtr a = make(2), b = make(-3), c = make(10);
    const NodePtr s = plus(times(a, b), c), e = times(s, s);
    backward(e);
    judge.equal("e = (a b + c)² at 2, -3, 10", e->value, 16);
    judge.equal("de/da", a->grad, -24);
    judge.equal("de/db", b->grad, 16);
    judge.equal("de/dc", c->grad, 8);
    judge.equal("s, which is used twice, ran once", s->runs, 1);
  }
  {  // y = x + x, twenty times: 2^20 paths from the end to the beginning, 21 nodes
    const NodePtr x = make(1);
    std::vector<NodePtr> chain{x};
    for (int i = 0; i < 20; ++i) chain.push_back(plus(chain.back(), chain.back()));
    backward(chain.back());
    judge.equal("twenty doublings: dy/dx", x->grad, std::pow(2.0, 20));
    int most = 0;
    for (const NodePtr& node : chain) most = std::max(most, node->runs);
    judge.equal("and no node ran twice", most, 1);
  }
  {  // a short and a long way from x to y: x must wait for the long one
    const NodePtr x = make(3);
    NodePtr slow = x;
    for (int i = 0; i < 5; ++i) slow = times(slow, make(2));
    const NodePtr middle = times(x, x);
    backward(plus(times(middle, make(10)), slow));
    judge.equal("10 x² + 32 x at 3: the derivative", x->grad, 92);
    judge.equal("x ran once", x->runs, 1);
  }
  {  // what the root does not depend on stays untouched
    const NodePtr x = make(1), other = times(x, make(5)), y = plus(x, x);
    backward(y);
    judge.equal("a branch that does not lead to the root did not run", other->runs, 0);
  }
}

const Chapter chapter(4, "The engine", check);

}  // namespace

}  // namespace mtcki::course
