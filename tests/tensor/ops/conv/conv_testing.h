// What the convolution tests share: values, the error measure, the settings that choose kernels,
// and shapes that exercise borders, strides and channel counts.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"

namespace mtcki::conv_testing {

// Deterministic values in [-1, 1) without structure that could hide a wrong index.
inline Tensor noise(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f64);
  double* p = t.data<double>();
  uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (int64_t i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    // Rounded to f32, so that both precisions start from the same numbers.
    p[i] = static_cast<float>(static_cast<double>(state >> 11) * 0x1.0p-52 - 1.0);
  }
  return t;
}

// Root mean square of the difference over that of the reference.
inline double error(const Tensor& got, const Tensor& want) {
  EXPECT_EQ(got.shape(), want.shape());
  const auto a = got.to(DType::f64).to_vector<double>(), b = want.to_vector<double>();
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size + 1e-300));
}

struct Setting {
  CpuKernels kernels;
  bool winograd;
};

class KernelSetting {
 public:
  explicit KernelSetting(const Setting& s)
      : before_{math_settings().cpu_kernels, math_settings().winograd} {
    set(s);
  }
  ~KernelSetting() { set(before_); }

 private:
  static void set(const Setting& s) {
    set_cpu_kernels(s.kernels);
    math_settings().winograd = s.winograd;
  }
  Setting before_;
};

inline std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const bool winograd : {true, false})
    for (CpuKernels kernels : {CpuKernels::automatic, CpuKernels::builtin})
      all.push_back({kernels, winograd});
  if (onednn_available()) all.push_back({CpuKernels::onednn, true});
  return all;
}

inline std::string name_of(const Setting& s) {
  const std::string kernels = s.kernels == CpuKernels::automatic ? "automatic"
                              : s.kernels == CpuKernels::builtin ? "builtin"
                                                                 : "onednn";
  return s.winograd ? kernels : kernels + " without Winograd";
}

struct Case {
  int64_t n, c, k, h, w, r, s;
  Conv2dOptions options;
};

inline std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](int64_t n, int64_t c, int64_t k, int64_t size, int64_t kernel,
                       int64_t stride, int64_t pad) {
    all.push_back({n, c, k, size, size, kernel, kernel, Conv2dOptions(stride, pad)});
  };
  // 3x3 stride 1 pad 1: Winograd where the channels allow; sizes with and without remainder of 4.
  for (int64_t size : {4, 5, 7, 8, 14, 28, 32, 1, 2, 3}) add(2, 16, 16, size, 3, 1, 1);
  add(1, 8, 24, 7, 3, 1, 1);
  add(5, 24, 8, 14, 3, 1, 1);
  add(2, 64, 48, 9, 3, 1, 1);
  add(3, 128, 128, 4, 3, 1, 1);
  add(2, 32, 16, 10, 3, 1, 0);
  add(2, 16, 32, 6, 3, 1, 2);
  add(9, 80, 16, 16, 3, 1, 1);
  // The same at stride 2.
  for (int64_t size : {1, 2, 3, 4, 6, 8, 9, 16, 17, 32}) add(2, 16, 16, size, 3, 2, 1);
  add(1, 8, 24, 11, 3, 2, 1);
  add(5, 24, 8, 14, 3, 2, 1);
  add(2, 64, 48, 9, 3, 2, 1);
  add(35, 48, 80, 8, 3, 2, 1);
  // Few or odd channels: images in, images out, neither multiple of the block.
  for (int64_t c : {1, 3, 10}) {
    add(2, c, 16, 28, 3, 1, 1);
    add(5, 16, c, 14, 3, 1, 1);
    add(1, c, 10, 7, 3, 2, 1);
    add(2, c, c, 9, 5, 2, 2);
    add(2, 64, c, 32, 3, 1, 1);
    add(2, c, 64, 32, 3, 1, 1);
  }
  // 1x1 where a channel count fills no whole blocks.
  add(5, 58, 20, 8, 1, 1, 0);
  add(2, 16, 30, 20, 1, 1, 0);
  add(2, 30, 16, 4, 1, 1, 0);
  add(2, 7, 300, 8, 1, 1, 0);
  add(1, 300, 7, 12, 1, 1, 0);
  all.push_back({6, 13, 11, 9, 16, 1, 1, Conv2dOptions()});  // not a whole tile of pixels
  // Strides, kernels.
  for (int64_t size : {7, 14, 28, 5}) {
    add(2, 16, 32, size, 3, 2, 1);
    add(2, 16, 32, size, 1, 2, 0);
    add(2, 16, 32, size, 1, 1, 0);
    add(1, 8, 16, size, 4, 2, 1);
  }
  add(2, 3, 64, 32, 7, 2, 3);
  add(1, 16, 8, 14, 7, 1, 3);
  add(2, 24, 40, 8, 4, 1, 0);
  add(2, 16, 16, 11, 3, 3, 1);
  add(1, 16, 16, 13, 2, 4, 0);
  // Rectangles, unequal strides and paddings, dilation, groups.
  Case odd{2, 16, 24, 9, 17, 3, 5, Conv2dOptions()};
  odd.options.stride = {2, 1};
  odd.options.padding = {0, 3};
  all.push_back(odd);
  Case tall{2, 16, 16, 40, 6, 3, 3, Conv2dOptions(1, 1)};
  all.push_back(tall);
  Case dilated{2, 16, 16, 12, 12, 3, 3, Conv2dOptions(1, 2)};
  dilated.options.dilation = {2, 2};
  all.push_back(dilated);
  Case grouped{2, 16, 32, 10, 10, 3, 3, Conv2dOptions(1, 1)};
  grouped.options.groups = 4;
  all.push_back(grouped);
  // Groups of whole channel blocks; depthwise at every stride, padding and dilation; a filter bank
  // per channel, and channels that are no whole block.
  Case blocks{3, 64, 32, 9, 9, 3, 3, Conv2dOptions(1, 1)};
  blocks.options.groups = 2;
  all.push_back(blocks);
  blocks.options.stride = {2, 2};
  all.push_back(blocks);
  for (int64_t size : {1, 2, 8, 15})
    for (int64_t stride : {1, 2, 3})
      for (int64_t kernel : {1, 3, 5}) {
        Case depthwise{9, 32, 32, size, size, kernel, kernel, Conv2dOptions(stride, kernel / 2)};
        depthwise.options.groups = 32;
        all.push_back(depthwise);
      }
  Case uneven{2, 16, 16, 12, 15, 3, 4, Conv2dOptions()};
  uneven.options.groups = 16;
  uneven.options.dilation = {2, 3};
  for (const auto& [stride, pad] : {std::pair<int64_t, int64_t>{1, 0}, {1, 7}, {2, 3}, {1, 2}}) {
    uneven.options.stride = {stride, 1};
    uneven.options.padding = {pad, pad};
    all.push_back(uneven);
  }
  for (int64_t size : {3, 8, 13, 16})
    for (int64_t stride : {1, 2}) {
      Case plain{9, 21, 21, size, size + 1, 3, 3, Conv2dOptions(stride, 1)};
      plain.options.groups = 21;
      all.push_back(plain);
    }
  for (int64_t k : {12, 24}) {
    Case odd_channels{2, 12, k, 7, 7, 3, 3, Conv2dOptions(1, 1)};
    odd_channels.options.groups = 12;
    all.push_back(odd_channels);
  }
  return all;
}

inline std::string text(const Case& c) {
  return str("n", c.n, " ", c.c, "->", c.k, " ", c.h, "x", c.w, " kernel ", c.r, "x", c.s,
             " stride ", c.options.stride[0], " pad ", c.options.padding[0], " dilation ",
             c.options.dilation[0], " groups ", c.options.groups);
}

constexpr double kTolerance = 5e-6;

}  // namespace mtcki::conv_testing
