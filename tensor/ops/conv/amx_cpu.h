// Internal: bf16 convolutions by matrix tiles. Contract of conv_bf16 (conv_kernels.h): activations
// channels_last, sums in f32, weights rounded to bf16, an epilogue of no more than a bias. Groups
// 1, channel counts of multiples of 32; any kernel, stride, padding and dilation.
#pragma once

#include "tensor/ops/conv/amx_tiles.h"
#include "tensor/ops/conv/kernels.h"

namespace mtcki::conv_amx {

bool applies(const ConvProblem& d);

// Tiles: amx::Tiles where amx::available(); with amx::PlainTiles the same on any CPU, slowly.
template <class Tiles>
void forward(const ConvProblem& d, const bfloat16* x, const float* w, const ConvEpilogue& epilogue,
             bfloat16* y);
template <class Tiles>
void grad_input(const ConvProblem& d, const bfloat16* gy, const float* w, bfloat16* gx);
template <class Tiles>
void grad_weight(const ConvProblem& d, const bfloat16* gy, const bfloat16* x, float* gw);

}  // namespace mtcki::conv_amx
