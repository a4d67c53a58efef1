// Named ranges for the tools that watch a program (NVTX: Nsight Systems, Nsight Compute). Every op,
// module and stage opens one. They are made only when a tool is attached, or with MTCKI_NVTX=1.
#pragma once

namespace mtcki::cuda {

bool ranges_wanted();  // the same answer for the whole process
void push_range(const char* name);
void pop_range();

}  // namespace mtcki::cuda
