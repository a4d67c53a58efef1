#include "mtcki/losses/activation_loss.h"

#include "autograd/functions.h"

namespace mtcki {

Variable activation_loss(const Variable& feature) { return neg(mean(abs(feature))); }

}  // namespace mtcki
