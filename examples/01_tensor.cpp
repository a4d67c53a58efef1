// Tensors: create, view, broadcast, change the memory layout.
// Expect: row sums 0.5 9.5; blocked and plain agree: yes
#include <cstdio>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/tensor.h"

using namespace mtcki;

int main() {
  // Create. A Tensor is a handle: copies share the bytes.
  const Tensor a = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3});
  std::printf("a     %s\n", a.describe().c_str());

  // Views share memory: a reshape, and a slice of the first dimension.
  const Tensor flat = a.reshape({-1});
  const Tensor second_row = a.slice(1, 2);
  std::printf("flat  %s, shares memory with a: %s\n", flat.describe().c_str(),
              flat.shares_memory(a) ? "yes" : "no");
  std::printf("row 1 %s, first element %g\n", second_row.describe().c_str(),
              static_cast<double>(second_row.data<float>()[0]));

  // Broadcasting is NumPy's: [2,3] minus [3].
  const Tensor b = Tensor::from(std::vector<float>{0.5f, 1.0f, 1.0f}, {3});
  const std::vector<float> sums = sum(sub(a, b), {1}).to_vector<float>();

  // Layout: the shape stays [N,C,H,W], the order in memory changes. On the CPU the fast order keeps
  // kChannelBlock channels of a pixel side by side.
  Tensor image = Tensor::empty({1, kChannelBlock, 2, 2});
  for (int64_t i = 0; i < image.numel(); ++i) image.data<float>()[i] = static_cast<float>(i);
  const Tensor blocked = image.to(Layout::blocked);
  std::printf("image %s -> layout %s: in memory %g %g %g ...\n", image.describe().c_str(),
              name_of(blocked.layout()), static_cast<double>(blocked.data<float>()[0]),
              static_cast<double>(blocked.data<float>()[1]),
              static_cast<double>(blocked.data<float>()[2]));
  const bool same = identical(add(blocked, 1.0).plain(), add(image, 1.0));

  std::printf("row sums %g %g; blocked and plain agree: %s\n", static_cast<double>(sums[0]),
              static_cast<double>(sums[1]), same ? "yes" : "no");
}
