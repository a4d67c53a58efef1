#include "optim/gradient_sync.h"

namespace mtcki::optim {

namespace {

// Parameters whose gradients share a dtype, a device and a message.
void reduce_bucket(std::vector<Variable>& bucket, const Communicator& comm) {
  if (bucket.empty()) return;
  int64_t total = 0;
  for (const Variable& p : bucket) total += p.numel();
  const Tensor& first = bucket.front().grad();
  const Tensor flat = Tensor::empty({total}, first.dtype(), first.device());
  int64_t at = 0;
  for (const Variable& p : bucket) {
    flat.slice(at, at + p.numel()).copy_(p.grad().reshape({p.numel()}));
    at += p.numel();
  }
  comm.all_reduce_sum_(flat);
  at = 0;
  for (Variable& p : bucket) {
    p.set_grad(flat.slice(at, at + p.numel()).reshape(p.shape()));
    at += p.numel();
  }
  bucket.clear();
}

}  // namespace

void all_reduce_gradients(const std::vector<Variable>& parameters, const Communicator& comm,
                          size_t bucket_bytes) {
  if (comm.size() == 1) return;
  std::vector<Variable> bucket;
  size_t bytes = 0;
  for (const Variable& p : parameters) {
    const Tensor& g = p.grad();
    if (!g.defined()) continue;
    const bool fits = bucket.empty() || (bytes + g.nbytes() <= bucket_bytes &&
                                         bucket.front().grad().dtype() == g.dtype() &&
                                         bucket.front().grad().device() == g.device());
    if (!fits) {
      reduce_bucket(bucket, comm);
      bytes = 0;
    }
    bucket.push_back(p);
    bytes += g.nbytes();
  }
  reduce_bucket(bucket, comm);
}

}  // namespace mtcki::optim
