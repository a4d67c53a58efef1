// Teacher: a classifier that is only ever asked. Frozen, in eval mode (checked at every call), with
// its own input normalisation, which is part of the graph: images come in [0,1].
// Its weights and running statistics are bit-identical before and after a run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

class Teacher {
 public:
  struct Options {
    std::string name;
    nn::ModelSpec spec;
    data::Normalization normalization;  // one value per channel
    double weight = 1.0;                // w_m before normalisation over the teachers
    double top1 = -1;                   // percent on the real test set, if known
  };
  // Freezes `net` and puts it into eval mode. UsageError when the normalisation does not have one
  // value per input channel.
  Teacher(Options options, std::unique_ptr<nn::Classifier> net);
  Teacher(const Teacher&) = delete;
  Teacher& operator=(const Teacher&) = delete;

  const std::string& name() const { return options_.name; }
  const Options& options() const { return options_; }
  void set_weight(double weight) { options_.weight = weight; }
  int64_t num_classes() const { return net_->num_classes(); }
  int64_t feature_dim() const { return net_->feature_dim(); }
  Tensor class_weights() const;  // nn::Classifier::class_weights()
  // Multiply-accumulates of one forward of one image.
  double macs() const { return macs_; }
  // Weights, statistics and normalisation, in place. Before anything holds them.
  void to(Device device);
  Device device() const { return mean_.device(); }
  void set_precision(nn::Precision precision) { net_->set_precision(precision); }
  nn::StateDict state_dict() { return net_->state_dict(); }
  // Its weights with architecture, normalisation, accuracy (percent) and the names of its classes.
  void save(const std::string& path, double top1, double top5, const std::string& config_sha256,
            const std::vector<std::string>& classes = {});

  // What one pass gives. Taps are inputs of modules, in the order of batch_norms() and stages().
  struct View {
    Variable logits;                     // [N, K]
    Variable feature;                    // [N, feature_dim()]
    std::vector<Variable> bn_inputs;     // [N, C_l, H_l, W_l]
    std::vector<MomentSums> bn_moments;  // theirs; undefined with kTapsOnly
    std::vector<Variable> stage_inputs;
    Variable map;  // nn::Classifier::Output::map
  };
  enum Taps : unsigned { kNone = 0, kBn = 1, kStages = 2, kTapsOnly = 4, kMap = 8 };
  // One forward of images [N,C,H,W] in [0,1]. With kTapsOnly the pass ends at the last wanted tap:
  // logits and feature stay undefined.
  View view(const Variable& images, unsigned taps);
  // Logits and feature without a graph, on the teacher's device; images from any. With
  // batch_statistics the batch norms take mean and variance of these images; the running ones stay.
  nn::Classifier::Output forward_no_grad(const Tensor& images, bool batch_statistics = false);

  const std::vector<nn::BatchNorm2d*>& batch_norms() const { return batch_norms_; }
  // Channels of the tapped inputs, known after construction.
  const std::vector<int64_t>& bn_channels() const { return bn_channels_; }
  const std::vector<int64_t>& stage_channels() const { return stage_channels_; }

 private:
  void check_frozen() const;
  Variable normalized(const Variable& images) const;
  void measure();

  Options options_;
  std::unique_ptr<nn::Classifier> net_;
  std::vector<nn::Module*> modules_;
  std::vector<Variable> parameters_;
  std::vector<nn::BatchNorm2d*> batch_norms_;
  std::vector<int64_t> bn_channels_, stage_channels_;
  Tensor mean_, std_;
  double macs_ = 0;
};

// The teachers of a run and their weights w_m, Σ w_m = 1.
class Teachers {
 public:
  void add(std::unique_ptr<Teacher> teacher);
  size_t size() const { return list_.size(); }
  Teacher& operator[](size_t m) { return *list_[m]; }
  const Teacher& operator[](size_t m) const { return *list_[m]; }
  std::vector<double> weights() const;  // normalised; UsageError when all are 0
  double macs() const;                  // of all
  void to(Device device);
  void set_precision(nn::Precision precision) {
    for (const auto& t : list_) t->set_precision(precision);
  }
  Device device() const { return list_.empty() ? Device::cpu() : list_.front()->device(); }

 private:
  std::vector<std::unique_ptr<Teacher>> list_;
};

}  // namespace mtcki
