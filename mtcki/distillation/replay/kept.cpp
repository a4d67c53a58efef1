#include "mtcki/distillation/replay/replay.h"
#include "mtcki/synthesis/stage.h"

namespace mtcki {

KeptReplay::KeptReplay(const ReplayContext& context) : context_(context) {
  if (!context.dir.empty()) own_.emplace(context.dir + "/synth", context.info);
}

void KeptReplay::add(int64_t number, const Synthesizer::Batch& batch) {
  store_images(batch, number, *context_.teachers, context_.synthesis, *own_);
  forget();
}

void KeptReplay::prepare(int64_t step) {
  if (shown_ != own_batches()) {
    shown_ = own_batches();
    first_ = step;
  }
  choose(step - first_);
}

uint64_t KeptReplay::order() const {
  return context_.seed + static_cast<uint64_t>(own_batches()) * 0x9e3779b97f4a7c15ull;
}

void KeptReplay::visit(State& s) {
  int64_t batches = own_batches();
  uint32_t digest = own_ && !s.loading() ? own_->digest(batches) : 0;
  s("batches", batches);
  s("digest", digest);
  s("shown", shown_);
  s("first", first_);
  if (!s.loading() || !own_) return;
  own_->require(batches, digest);
  own_->truncate(batches);
  forget();
}

}  // namespace mtcki
