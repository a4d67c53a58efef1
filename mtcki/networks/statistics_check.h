// Does a weight file belong to this network? A check without any data (docs/teachers.md).
//
// A batch norm stores the mean μ̂ and variance v̂ of its input over the training images. Noise with
// the spectrum of natural images goes through the network while every batch norm normalises with
// the statistics of its own input: each layer then sees inputs with the moments that the stored
// parameters promise, whatever came before, and errors do not add up. With the right network the
// moments μ, v of the next batch norm's input come out close to the stored ones:
//
//   mean_l     = mean over channels of |μ − μ̂| / sqrt(v̂ + ε)
//   variance_l = mean over channels of |ln((v + ε) / (v̂ + ε))|
//
// A layer without weights that the file's network has and this one lacks (a pool, a stride) moves
// the means of the layers behind it by several times as much.
//
// The first convolution is linear, so its batch norm also tells the moments of the images it was
// trained on, in normalised units: m solves μ̂_c = Σ_k m_k Σ_taps W_ck (least squares), and the
// scale s is that of noise whose variances fit v̂. They are compared with those of the data set
// under common normalisations, with and without the black border of random crops.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

struct LayerFit {
  std::string name;  // of the batch norm
  int64_t channels = 0;
  double mean = 0, variance = 0;  // as above
};

struct StatisticsFit {
  std::vector<LayerFit> layers;   // in forward order; empty: the network has no batch norm
  double mean = 0, variance = 0;  // averages over the layers
  double score() const { return mean + variance / 2; }
  const LayerFit& worst() const;  // by mean
};

// Of `net`, which is not changed (a copy is run). images [N,C,H,W], normalised; undefined: noise.
StatisticsFit statistics_fit(nn::Classifier& net, const nn::ModelSpec& spec,
                             const Tensor& images = {});

// Other networks of the registry into which the same weights fit: with and without the pool behind
// a stem, with three or five pools in a VGG, with the strides for small images or for ImageNet.
std::vector<std::string> variants_of(const std::string& model);
// Says which these are, for who reads a foreign file without looking at its statistics.
void note_variants(const std::string& model, std::vector<std::string>* notes);

struct VariantFit {
  std::string model;
  StatisticsFit fit;
};
// Of the network and its variants, the given one first.
std::vector<VariantFit> variant_fits(nn::Classifier& net, const nn::ModelSpec& spec,
                                     const Tensor& images = {});

// What the first convolution saw in training.
struct InputMoments {
  std::vector<double> mean;  // per channel, in normalised units
  double std = 0;
};
// Nothing when the network does not begin with a convolution and a batch norm.
std::optional<InputMoments> input_moments(nn::Classifier& net, const nn::ModelSpec& spec);

struct NormalizationFit {
  std::string name;  // "ImageNet"
  data::Normalization normalization;
  double distance = 0;  // of means and scale, 0: exactly those
};
// Common normalisations and the given one (first), for images with these pixel moments; the others
// sorted by distance.
std::vector<NormalizationFit> normalization_fits(const InputMoments& seen,
                                                 const data::Normalization& pixels,
                                                 const data::Normalization& given);

// One line for each thing that fits clearly better than what was said: "statistics fit
// resnet18_pool (0.05), not resnet18 (0.24)". Empty when all is well. The first asks about the
// network only.
std::vector<std::string> variant_doubts(const std::vector<VariantFit>& fits);
std::vector<std::string> statistics_doubts(nn::Classifier& net, const nn::ModelSpec& spec,
                                           const data::Normalization& pixels,
                                           const data::Normalization& given);

}  // namespace mtcki
