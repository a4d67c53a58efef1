// Which settings of [distill], and which of a given set, cannot go together.
#include "mtcki/config/keys.h"
#include "mtcki/config/source_names.h"
#include "tensor/error.h"

namespace mtcki::config_keys {

void validate_distill(const RunConfig& c) {
  const DistillConfig& d = c.distill;
  if (d.nesterov && d.momentum == 0.0)
    throw UsageError("distill.nesterov: needs distill.momentum > 0");
  if (d.min_lr > d.lr) throw UsageError("distill.min_lr: is above distill.lr");
  if (d.views > 0 && c.adversarial.rounds > 0)
    throw UsageError(
        "distill.views: the set grows in adversarial.rounds, so the teachers' outputs cannot be "
        "kept; set one of them to 0");
  if (d.views > 1 && d.pad == 0 && !d.flip)
    throw UsageError(
        "distill.views: without distill.pad and distill.flip all views of an image are the same; "
        "set it to 1");
  const SynthesisConfig& s = c.synthesis;
  if (is_given(s.source) && c.adversarial.rounds > 0)
    throw UsageError(str("adversarial.rounds: continue a synthesis, and synthesis.source ",
                         s.source, " has none"));
  if ((s.source == "sets") == s.from.empty())
    throw UsageError("synthesis.from: goes with synthesis.source sets, and only with that");
}

}  // namespace mtcki::config_keys
