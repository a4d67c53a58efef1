// Exercise 4: the engine, which walks a graph backwards (docs/course/04_engine.md).
#include <queue>
#include <set>

#include "course/course.h"

namespace mtcki::course {

namespace {

// For std::priority_queue: the node with the largest number comes up first.
struct Earlier {
  bool operator()(const NodePtr& a, const NodePtr& b) const { return a->number < b->number; }
};

}  // namespace

// Sets the grad of the root to 1 and calls propagate() of every node that the root depends on:
// once, and only when all nodes that use it have run.
void backward(const NodePtr& root) {
  std::priority_queue<NodePtr, std::vector<NodePtr>, Earlier> ready;
  std::set<Node*> queued;  // a node that is used twice must not be pushed twice
  root->grad = 1;
  hole(
      "backward: push the root; while nodes are ready, take one, propagate, push what it came "
      "from");
}

}  // namespace mtcki::course
