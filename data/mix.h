// What a batch shows beside each of its images: nothing; a second image of the set, blended in
// (mixup: Zhang et al., ICLR 2018) or in a box of it (CutMix: Yun et al., ICCV 2019). The image
// itself has the greater share, uniform in [1/2, 1], and gives label and row.
#pragma once

namespace mtcki::data {

enum class Mix { none, mixup, cutmix };

}  // namespace mtcki::data
