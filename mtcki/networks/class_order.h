// Whether a network's classes are those of a data set, and in the same order.
#pragma once

#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "mtcki/networks/model_file.h"

namespace mtcki {

// Files of this project name their classes (ModelCard::classes). Where they are the set's in another
// order, the rows of the network's last Linear are put into the set's order and `notes` says so;
// other names get a warning there, since they may be other words for the same classes.
// Files of earlier versions have no names: those of tiny-imagenet were numbered by the lines of
// wnids.txt, which their accuracy proves (top1 above twice chance), and are reordered likewise.
// Foreign files, which say nothing of their classes, stay as they are.
void align_classes(nn::Classifier& net, ModelCard* card, const data::ImageSet& set,
                   std::vector<std::string>* notes);

}  // namespace mtcki
