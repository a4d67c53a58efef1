#include "mtcki/losses/projection_head.h"

#include "autograd/functions.h"

namespace mtcki {

namespace {

class Relu : public nn::Module {
 public:
  std::string kind() const override { return "ReLU"; }

 protected:
  Variable forward(const Variable& x) override { return relu(x); }
};

}  // namespace

std::unique_ptr<nn::Sequential> projection_head(int64_t in, int64_t out, nn::Init& init) {
  auto head = std::make_unique<nn::Sequential>();
  head->add("0", std::make_unique<nn::Linear>(in, in, true, init));
  head->add("1", std::make_unique<Relu>());
  head->add("2", std::make_unique<nn::Linear>(in, out, true, init));
  return head;
}

}  // namespace mtcki
