#include "mtcki/losses/class_balance.h"

#include "autograd/functions.h"

namespace mtcki {

Variable class_balance(const Variable& logits) {
  const Variable p = mean(softmax(logits), {0});
  return sum(mul(p, log(add(p, 1e-30))));  // 0·log 0 = 0
}

}  // namespace mtcki
