// (5) A batch should show all classes (DAFL, DFQ; off by default): minus the entropy of the mean
// prediction,  L_bal = Σ_k p̂_k log p̂_k,  p̂ = batch mean of softmax(z).
#pragma once

#include "autograd/variable.h"

namespace mtcki {

Variable class_balance(const Variable& logits);

}  // namespace mtcki
