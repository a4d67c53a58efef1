// CIFAR-10 and CIFAR-100: the binary form and the Python form (pickles by Python 2).
#pragma once

#include <string>

#include "data/formats/file_bytes.h"
#include "tensor/tensor.h"

namespace mtcki::data {

struct LabelledImages {
  Tensor images;  // u8 [N,3,32,32]
  Tensor labels;  // i64 [N]
};
// Records of label (CIFAR-10) or coarse and fine label (CIFAR-100: the fine one counts), then 3072
// bytes: planes R, G, B. expected_records < 0: any number. DataError: size, label out of range.
LabelledImages parse_cifar_binary(Bytes content, const std::string& file_name, bool cifar100,
                                  int64_t expected_records = -1);
// A batch of the Python form: dict with data u8 [N, 3072] and labels | fine_labels.
LabelledImages parse_cifar_pickle(Bytes content, const std::string& file_name, bool cifar100);

}  // namespace mtcki::data
