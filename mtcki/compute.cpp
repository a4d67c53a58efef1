#include "mtcki/compute.h"

#include "mtcki/config.h"

namespace mtcki {

Compute compute_of(const RunConfig& config) {
  Compute c;
  c.device = parse_device(config.device);
  c.precision = nn::parse_precision(config.precision);
  c.graph = config.graph == "on" || (config.graph == "auto" && c.device.is_cuda());
  if (c.device.is_cuda()) c.read_every = config.read_every > 0 ? config.read_every : 25;
  return c;
}

}  // namespace mtcki
