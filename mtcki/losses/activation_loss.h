// (5) Images that excite the network (DAFL; off by default):  L_act = −mean |f(x)|.
#pragma once

#include "autograd/variable.h"

namespace mtcki {

Variable activation_loss(const Variable& feature);

}  // namespace mtcki
