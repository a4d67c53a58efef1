// ImageSource: what synthesis optimises. A source makes the images of a batch, with their graph, and
// moves whatever they are made from down their gradient. Which source: synthesis.source.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/training/compute.h"
#include "mtcki/training/state.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "tensor/comm.h"
#include "tensor/rng.h"

namespace mtcki {

class Teachers;

struct SourceOptions {
  int64_t channels = 3, image_size = 32;
  data::Normalization normalization;  // of the real set: where pixels are optimised
  uint64_t seed = 0;
  Compute compute;
  int64_t num_classes = 10;
  Teachers* teachers = nullptr;  // for class_embedding
};

class ImageSource {
 public:
  virtual ~ImageSource() = default;

  // Begins batch number `batch`. What a method draws anew is drawn from (seed, batch), so that any
  // batch can be begun again; tensors that captured steps know stay where they are.
  virtual void begin_batch(int64_t batch) = 0;
  // Before it, for sources that make an image from its label: i64 [B] of all ranks, on the host.
  virtual void set_labels(const Tensor& /*labels*/) {}
  // These rows of the batch: [n,C,H,W] in [0,1]. Gradients are summed over ranks by update().
  virtual Variable images(const RowRange& rows) = 0;
  virtual void zero_grad() = 0;
  // After the backward: the step of the optimiser.
  virtual void update() = 0;
  // All steps of the batch are done.
  virtual void end_batch() {}
  // For a student, whether or not a batch is under way: what is drawn for n images, on the host, and
  // the images [n,C,H,W] in [0,1] made of it, without a graph. Only of a source whose row in
  // sources.cpp says that it can.
  virtual Tensor draw_samples(int64_t /*n*/, const Rng&) const { return {}; }
  virtual Tensor samples(const Tensor& /*drawn*/) { return {}; }
  // Of the last images(): the generator's maps of them, without their graph, where they are wanted;
  // and the images [n,C,H,W] that it makes of maps number `level`, in evaluation mode.
  virtual const std::vector<Tensor>& maps() const {
    static const std::vector<Tensor> none;
    return none;
  }
  virtual Tensor decode(int64_t /*level*/, const Tensor& /*maps*/) { return {}; }
  // in_batch: a batch is under way, and was begun before its state is loaded.
  virtual void visit(State& state, bool in_batch) = 0;
};

// The generator of the configuration, on the device, as PyTorch initialises it; another one for
// every `draw`.
std::unique_ptr<nn::Generator> generator_of(const SynthesisConfig& config,
                                            const SourceOptions& options, int64_t draw = 0);
// Its images of latents. Maps on the way go to *maps, unless that is null.
Variable generate(nn::Generator& net, const Variable& latents, std::vector<Tensor>* maps);
// Without a graph, and with running statistics; in the layout and the type that the net works in.
Tensor decode_frozen(nn::Generator& net, int64_t level, const Tensor& maps);
// Whether g_life and g_life_first let a generator begin anew with this batch.
bool begins_anew(const SynthesisConfig& config, int64_t batch);
// Its Adam (β₁ = 0.5), with the latents at lr_z where that is set.
std::unique_ptr<optim::Optimizer> generator_adam(const SynthesisConfig& config, nn::Generator& net,
                                                 const Variable& latents);
// The source that the configuration names.
std::unique_ptr<ImageSource> make_source(const SynthesisConfig& config,
                                         const SourceOptions& options);
// One row each of the table in sources.cpp.
std::unique_ptr<ImageSource> make_generator_source(const SynthesisConfig& config,
                                                   const SourceOptions& options);
std::unique_ptr<ImageSource> make_pixel_source(const SynthesisConfig& config,
                                               const SourceOptions& options);
std::unique_ptr<ImageSource> make_meta_generator_source(const SynthesisConfig& config,
                                                        const SourceOptions& options);
std::unique_ptr<ImageSource> make_sampler_source(const SynthesisConfig& config,
                                                 const SourceOptions& options);
std::unique_ptr<ImageSource> make_noisy_source(const SynthesisConfig& config,
                                               const SourceOptions& options);

}  // namespace mtcki
