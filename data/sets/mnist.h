// MNIST and Fashion-MNIST: four idx files, plain or gzip.
#pragma once

#include <string>

#include "data/sets/dataset.h"

namespace mtcki::data {

ImageSet load_mnist(const std::string& dir, const std::string& split, bool fashion);

}  // namespace mtcki::data
