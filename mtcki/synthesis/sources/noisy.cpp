// X = G(N_i(BN(e_y))): images from their labels, and noise in the weights of a layer in place of
// latents (NAYER; Tran et al. 2024). e_y is a vector of class y, the same in every batch; what makes
// two images of a class differ is the noisy layer N_i, of which there is one for every K rows of a
// batch, each class once among them where the labels allow it.
//
//   per batch  N_i = Linear(E, nz), weights ~ N(0,1), biases 0; Adam as before its first step; G
//              and BN anew, as PyTorch initialises them, when g_life says so
//   step       G, BN and all N_i, by one Adam (β₁ = 0.5)
//
// e_y by class_embedding; the text embeddings of the authors would need the names of the classes:
//   teachers    row y of the last linear layer of every teacher, side by side; E = Σ_m d_m
//   orthogonal  row y of a random matrix with orthogonal rows of length √E; E = max(512, K)
#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/functions.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/synthesis/sources/source.h"
#include "nn/init.h"
#include "optim/gradient_sync.h"
#include "tensor/context.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

constexpr int64_t kWidth = 512;  // of the authors' text embeddings

Tensor class_rows(const Teacher& teacher) {
  const Tensor rows = teacher.class_weights();
  if (!rows.defined())
    throw UsageError(str("synthesis.class_embedding: teacher ", teacher.name(),
                         " does not end with a linear layer, whose rows would stand for the "
                         "classes; set it to \"orthogonal\""));
  return rows.to(Device::cpu());
}

// [K,E], on the CPU.
Tensor class_vectors(const SynthesisConfig& c, const SourceOptions& o) {
  if (c.class_embedding == ClassEmbedding::orthogonal) {
    const int64_t width = std::max(kWidth, o.num_classes);
    Variable rows(Tensor::empty({o.num_classes, width}));
    nn::orthogonal_(rows, std::sqrt(static_cast<double>(width)),
                    {o.seed, rng_stream("synthesis/classes"), 0});
    return rows.data();
  }
  std::vector<Tensor> parts;
  for (size_t m = 0; m < o.teachers->size(); ++m) parts.push_back(class_rows((*o.teachers)[m]));
  return cat(parts, 1);
}

// [B,E], rows in the order of the layers -> [B,nz]. Names are those of the authors' state dict.
class NoisyLayers : public nn::Module {
 public:
  NoisyLayers(int64_t in, int64_t out, int64_t batch, int64_t classes)
      : classes_(classes), norm_(add<nn::BatchNorm2d>("n1", in)) {
    auto& layers = add<nn::Sequential>("le1");
    nn::Init later = nn::Init::none();
    for (int64_t i = 0; i * classes < batch; ++i)
      layers_.push_back(&layers.add<nn::Linear>(std::to_string(i), in, out, true, later));
  }

  nn::BatchNorm2d& norm() { return norm_; }
  void redraw(const Rng& rng) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      nn::normal_(layers_[i]->weight, 0.0, 1.0, rng.at(rng.step * layers_.size() + i));
      nn::constant_(*layers_[i]->bias, 0.0);
    }
  }

 protected:
  Variable forward(const Variable& classes) override {
    const Variable x = norm_(classes);
    std::vector<Variable> parts;
    int64_t begin = 0;
    for (nn::Linear* layer : layers_) {
      const int64_t end = std::min(begin + classes_, x.size(0));
      parts.push_back((*layer)(narrow(x, 0, begin, end)));
      begin = end;
    }
    return cat(parts);
  }

 private:
  int64_t classes_;
  nn::BatchNorm2d& norm_;
  std::vector<nn::Linear*> layers_;
};

class NoisySource : public ImageSource {
 public:
  NoisySource(const SynthesisConfig& c, const SourceOptions& o)
      : config_(c),
        options_(o),
        classes_(class_vectors(c, o)),
        noisy_(classes_.size(1), c.nz, c.batch_size, o.num_classes),
        net_(generator_of(c, o)),
        rows_(Tensor::zeros({c.batch_size, classes_.size(1)}, DType::f32, o.compute.device)),
        place_(Tensor::zeros({c.batch_size}, DType::i64, o.compute.device)) {
    noisy_.to(o.compute.device);
    adam_ = optim::make_adam({optim::group_of(noisy_), optim::group_of(*net_)},
                             {.lr = c.lr_g, .beta1 = c.beta1, .beta2 = c.beta2});
  }

  void set_labels(const Tensor& labels) override {
    const std::vector<int64_t> y = labels.to_vector<int64_t>();
    std::vector<int64_t> seen(static_cast<size_t>(options_.num_classes)), turn, order(y.size()),
        place(y.size()), sorted;
    for (const int64_t c : y) turn.push_back(seen.at(static_cast<size_t>(c))++);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {},
                             [&](int64_t row) { return turn[static_cast<size_t>(row)]; });
    for (const int64_t row : order) {
      place[static_cast<size_t>(row)] = std::ssize(sorted);
      sorted.push_back(y[static_cast<size_t>(row)]);
    }
    rows_.copy_(index_select(classes_, Tensor::from(sorted, labels.shape())));
    place_.copy_(Tensor::from(place, labels.shape()));
  }

  void begin_batch(int64_t batch) override {
    if (begins_anew(config_, batch)) {
      net_->load_state_dict(generator_of(config_, options_, batch)->state_dict());
      noisy_.norm().load_state_dict(nn::BatchNorm2d(classes_.size(1)).state_dict());
    }
    noisy_.redraw({options_.seed, rng_stream("synthesis/noise"), static_cast<uint64_t>(batch)});
    net_->train();
    adam_->reset();
  }

  // The layers are small: every rank passes all rows through them, and batch norm sees them all.
  Variable images(const RowRange& rows) override {
    const StageScope scope("synthesis/generator");
    const Variable z = index_select(noisy_(Variable(rows_)), place_);
    return (*net_)(rows.size() == config_.batch_size ? z : narrow(z, 0, rows.begin, rows.end));
  }

  void zero_grad() override { adam_->zero_grad(); }

  void update() override {
    std::vector<Variable> trained = noisy_.parameters();
    for (const Variable& p : net_->parameters()) trained.push_back(p);
    optim::all_reduce_gradients(trained, communicator());
    adam_->step();
  }

  void visit(State& s, bool in_batch) override {
    s("weights", *net_);
    s("norm", noisy_.norm());
    if (!in_batch) return;
    s("noisy", noisy_);
    s("adam", *adam_);
  }

 private:
  SynthesisConfig config_;
  SourceOptions options_;
  Tensor classes_;  // [K,E], e of every class
  NoisyLayers noisy_;
  std::unique_ptr<nn::Generator> net_;
  Tensor rows_;   // [B,E], e of every image, in the order of the layers
  Tensor place_;  // i64 [B], where the row of each image stands there
  std::unique_ptr<optim::Optimizer> adam_;
};

}  // namespace

std::unique_ptr<ImageSource> make_noisy_source(const SynthesisConfig& config,
                                               const SourceOptions& options) {
  return std::make_unique<NoisySource>(config, options);
}

}  // namespace mtcki
