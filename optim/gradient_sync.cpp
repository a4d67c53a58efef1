#include "optim/gradient_sync.h"

namespace mtcki::optim {

namespace {

// Parameters of one dtype whose gradients share a device and a message. They are summed in that
// dtype (a gradient may be bf16), in the order in which the parameters lie in memory, which is the
// same on every rank.
void reduce_bucket(std::vector<Variable>& bucket, const Communicator& comm) {
  if (bucket.empty()) return;
  int64_t total = 0;
  for (const Variable& p : bucket) total += p.numel();
  const Variable& first = bucket.front();
  const Tensor flat = Tensor::empty({total}, first.data().dtype(), first.grad().device());
  int64_t at = 0;
  for (const Variable& p : bucket) {
    const Tensor grad = p.grad().to(p.data().layout());
    flat.slice(at, at + p.numel()).copy_(grad.in_memory_order());
    at += p.numel();
  }
  comm.all_reduce_sum_(flat);
  at = 0;
  for (Variable& p : bucket) {
    p.set_grad(flat.slice(at, at + p.numel()).ordered_as(p.data()));
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
    const size_t own = p.data().nbytes();
    const bool fits = bucket.empty() || (bytes + own <= bucket_bytes &&
                                         bucket.front().data().dtype() == p.data().dtype() &&
                                         bucket.front().grad().device() == g.device());
    if (!fits) {
      reduce_bucket(bucket, comm);
      bytes = 0;
    }
    bucket.push_back(p);
    bytes += own;
  }
  reduce_bucket(bucket, comm);
}

}  // namespace mtcki::optim
