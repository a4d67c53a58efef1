#include "mtcki/networks/statistics_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "mtcki/networks/natural_noise.h"
#include "mtcki/networks/onnx_import.h"
#include "nn/layers.h"
#include "nn/models/graph.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/norm.h"

namespace mtcki {

namespace {

// As many as give a later layer's channels about a thousand values.
int64_t noise_images(int64_t size) { return std::clamp<int64_t>(65536 / (size * size), 16, 64); }

std::unique_ptr<nn::Classifier> copy_of(nn::Classifier& net, const nn::ModelSpec& spec) {
  nn::Init init(0);
  init.draw = false;
  const auto* graph = dynamic_cast<const nn::GraphClassifier*>(&net);
  std::unique_ptr<nn::Classifier> copy;
  if (graph)
    copy = std::make_unique<nn::GraphClassifier>(graph->spec());
  else
    copy = nn::make_classifier(spec, init);
  // The variants' names are the same network's in another spelling, in the same order.
  nn::StateDict state = net.state_dict(), mine = copy->state_dict();
  if (state.size() != mine.size()) throw Error(str(spec.name, " is no variant of the network"));
  for (size_t i = 0; i < state.size(); ++i) state[i].first = mine[i].first;
  copy->load_state_dict(state);
  return copy;
}

LayerFit fit_of(const nn::BatchNorm2d& bn, const Tensor& mean, const Tensor& var,
                const Tensor& input) {
  const ChannelMoments now = channel_moments(input);
  LayerFit out;
  out.channels = mean.size(0);
  const auto m = now.mean.to_vector<float>(), v = now.var.to_vector<float>(),
             m0 = mean.to_vector<float>(), v0 = var.to_vector<float>();
  for (size_t c = 0; c < m.size(); ++c) {
    const double stored = v0[c] + bn.eps(), n = static_cast<double>(m.size());
    out.mean += std::abs(m[c] - m0[c]) / std::sqrt(stored) / n;
    out.variance += std::abs(std::log((v[c] + bn.eps()) / stored)) / n;
  }
  return out;
}

nn::Conv2d* first_convolution(nn::Classifier& net) {
  for (auto& [path, module] : net.named_modules())
    if (auto* conv = dynamic_cast<nn::Conv2d*>(module)) return conv;
  return nullptr;
}

// Solves the normal equations of a x ~ b by elimination; x stays 0 where a column adds nothing.
std::vector<double> least_squares(const std::vector<std::vector<double>>& columns,
                                  const std::vector<double>& b) {
  const size_t n = columns.size();
  std::vector<std::vector<double>> a(n, std::vector<double>(n + 1, 0.0));
  for (size_t i = 0; i < n; ++i)
    for (size_t r = 0; r < b.size(); ++r) {
      for (size_t j = 0; j < n; ++j) a[i][j] += columns[i][r] * columns[j][r];
      a[i][n] += columns[i][r] * b[r];
    }
  std::vector<double> x(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    if (a[i][i] <= 1e-12) continue;
    for (size_t k = 0; k < n; ++k) {
      if (k == i) continue;
      const double f = a[k][i] / a[i][i];
      for (size_t j = i; j <= n; ++j) a[k][j] -= f * a[i][j];
    }
  }
  for (size_t i = 0; i < n; ++i)
    if (a[i][i] > 1e-12) x[i] = a[i][n] / a[i][i];
  return x;
}

// The same without negative parts: the best of all subsets of the few columns.
std::vector<double> non_negative(const std::vector<std::vector<double>>& columns,
                                 const std::vector<double>& b) {
  std::vector<double> best(columns.size(), 0.0);
  double least = INFINITY;
  for (unsigned set = 1; set < 1u << columns.size(); ++set) {
    std::vector<std::vector<double>> some;
    for (size_t i = 0; i < columns.size(); ++i)
      if (set >> i & 1) some.push_back(columns[i]);
    const std::vector<double> x = least_squares(some, b);
    if (std::any_of(x.begin(), x.end(), [](double v) { return v < 0; })) continue;
    double error = 0;
    for (size_t r = 0; r < b.size(); ++r) {
      double y = -b[r];
      for (size_t i = 0; i < some.size(); ++i) y += some[i][r] * x[i];
      error += y * y;
    }
    if (error >= least) continue;
    least = error;
    std::fill(best.begin(), best.end(), 0.0);
    for (size_t i = 0, j = 0; i < columns.size(); ++i)
      if (set >> i & 1) best[i] = x[j++];
  }
  return best;
}

// Mean and scale of normalised images, of which a share is a border of the value `border`.
InputMoments expected(const data::Normalization& pixels, const data::Normalization& n, double share,
                      bool black) {
  InputMoments out;
  double square = 0;
  const size_t channels = pixels.mean.size();
  for (size_t c = 0; c < channels; ++c) {
    const double m = (pixels.mean[c] - n.mean[c]) / n.std[c], s = pixels.std[c] / n.std[c];
    const double border = black ? -n.mean[c] / n.std[c] : 0.0;
    const double mean = (1 - share) * m + share * border;
    out.mean.push_back(mean);
    square += ((1 - share) * (s * s + m * m) + share * border * border - mean * mean) /
              static_cast<double>(channels);
  }
  out.std = std::sqrt(square);
  return out;
}

double distance(const InputMoments& a, const InputMoments& b) {
  double square = 0;
  for (size_t c = 0; c < a.mean.size(); ++c)
    square +=
        (a.mean[c] - b.mean[c]) * (a.mean[c] - b.mean[c]) / static_cast<double>(a.mean.size());
  return std::sqrt(square) + std::abs(std::log(std::max(a.std, 1e-6) / std::max(b.std, 1e-6)));
}

// Crops of 32 pixels after padding by 4 take 20/9 pixels of the border in each direction on average.
double border_share() {
  const double inside = 1 - 20.0 / 9 / 32;
  return 1 - inside * inside;
}

}  // namespace

const LayerFit& StatisticsFit::worst() const {
  return *std::max_element(layers.begin(), layers.end(),
                           [](const LayerFit& a, const LayerFit& b) { return a.mean < b.mean; });
}

StatisticsFit statistics_fit(nn::Classifier& net, const nn::ModelSpec& spec, const Tensor& images) {
  const NoGradScope no_grad;
  const auto copy = copy_of(net, spec);
  StatisticsFit out;
  std::vector<nn::HookHandle> hooks;
  for (auto& [path, module] : copy->named_modules()) {
    auto* bn = dynamic_cast<nn::BatchNorm2d*>(module);
    if (!bn) continue;
    hooks.push_back(
        bn->add_before_hook([&out, bn, name = path, mean = bn->running_mean.clone(),
                             var = bn->running_var.clone()](const nn::Module&, const Variable& x) {
          out.layers.push_back(fit_of(*bn, mean, var, x.data()));
          out.layers.back().name = name;
        }));
  }
  if (hooks.empty()) return out;
  const int64_t n = noise_images(spec.image_size);
  copy->train();
  (*copy)(Variable(images.defined() ? images
                                    : natural_noise(n, spec.in_channels, spec.image_size, 1.0)));
  for (const LayerFit& layer : out.layers) {
    out.mean += layer.mean / static_cast<double>(out.layers.size());
    out.variance += layer.variance / static_cast<double>(out.layers.size());
  }
  return out;
}

std::vector<std::string> variants_of(const std::string& model) {
  // Sizes of the parameters; empty where there is no such network.
  const auto sizes = [](const std::string& name) {
    std::vector<Shape> out;
    nn::Init none = nn::Init::none();
    try {
      const auto net = nn::make_classifier({name, 3, 32, 10}, none);
      for (const auto& [key, p] : net->named_parameters()) out.push_back(p->shape());
    } catch (const UsageError&) {
      out.clear();
    }
    return out;
  };
  std::string base = model;
  for (const std::string suffix : {"_pool", "_in"})
    if (model.ends_with(suffix)) base.resize(model.size() - suffix.size());
  std::vector<std::string> out;
  const std::vector<Shape> mine = sizes(model);
  for (const char* suffix : {"", "_pool", "_in"})
    if (const std::string other = base + suffix; other != model && sizes(other) == mine)
      out.push_back(other);
  return mine.empty() ? std::vector<std::string>() : out;
}

void note_variants(const std::string& model, std::vector<std::string>* notes) {
  if (const std::vector<std::string> others = variants_of(model); !others.empty())
    notes->push_back(fmt::format(
        "read as {}; names and shapes of {} are the same (other pools and strides): mtcki inspect "
        "FILE compares the statistics",
        model, fmt::join(others, ", ")));
}

std::vector<VariantFit> variant_fits(nn::Classifier& net, const nn::ModelSpec& spec,
                                     const Tensor& images) {
  std::vector<VariantFit> out{{spec.name, statistics_fit(net, spec, images)}};
  if (out[0].fit.layers.empty()) return out;
  for (const std::string& name : variants_of(spec.name)) {
    nn::ModelSpec other = spec;
    other.name = name;
    try {
      out.push_back({name, statistics_fit(net, other, images)});
    } catch (const UsageError&) {
      // It does not take images of this size.
    }
  }
  return out;
}

std::optional<InputMoments> input_moments(nn::Classifier& net, const nn::ModelSpec& spec) {
  nn::Conv2d* conv = first_convolution(net);
  const auto norms = net.batch_norms();
  if (!conv || norms.empty()) return {};
  const nn::BatchNorm2d& bn = *norms[0];
  const Tensor w = conv->weight.data().to(Device::cpu()).to(DType::f32);
  const int64_t outputs = w.size(0), inputs = w.size(1), taps = w.size(2) * w.size(3);
  if (bn.running_mean.size(0) != outputs || inputs != spec.in_channels) return {};
  const auto weights = w.to_vector<float>(), mean = bn.running_mean.to_vector<float>(),
             var = bn.running_var.to_vector<float>();
  const auto bias = conv->bias ? conv->bias->data().to_vector<float>()
                               : std::vector<float>(static_cast<size_t>(outputs), 0.0f);
  std::vector<std::vector<double>> sums(static_cast<size_t>(inputs));
  std::vector<double> means, ones(static_cast<size_t>(outputs), 1.0);
  for (int64_t o = 0; o < outputs; ++o) {
    const auto at = static_cast<size_t>(o);
    const double sd = std::sqrt(var[at] + bn.eps());
    means.push_back((mean[at] - bias[at]) / sd);
    for (int64_t i = 0; i < inputs; ++i) {
      double sum = 0;
      for (int64_t t = 0; t < taps; ++t)
        sum += weights[static_cast<size_t>((o * inputs + i) * taps + t)];
      sums[static_cast<size_t>(i)].push_back(sum / sd);
    }
  }
  InputMoments out;
  out.mean = least_squares(sums, means);
  const InputScaling own = input_scaling(net);
  // Noise of three spectra; their shares follow from how v̂ is spread over the channels.
  std::vector<std::vector<double>> columns;
  const int64_t pad = w.size(2) / 2, size = spec.image_size;
  for (const double slope : {0.0, 1.0, 1.5}) {
    const Tensor y = conv2d(natural_noise(noise_images(size), inputs, size, slope), w, {},
                            Conv2dOptions(1, pad));
    const auto v = channel_moments(y).var.to_vector<float>();
    std::vector<double> column;
    for (size_t o = 0; o < v.size(); ++o) column.push_back(v[o] / (var[o] + bn.eps()));
    columns.push_back(std::move(column));
  }
  double square = 0;
  for (const double x : non_negative(columns, ones)) square += x;
  out.std = std::sqrt(square);
  for (size_t c = 0; c < own.scale.size(); ++c)
    out.mean[c] = (out.mean[c] - own.shift[c]) / own.scale[c];
  if (!own.scale.empty()) out.std /= std::abs(own.scale[0]);
  return out;
}

std::vector<NormalizationFit> normalization_fits(const InputMoments& seen,
                                                 const data::Normalization& pixels,
                                                 const data::Normalization& given) {
  std::vector<NormalizationFit> out{{"as given", given, 0}};
  if (seen.mean.size() == 3) {
    out.push_back({"CIFAR-10", {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}}, 0});
    out.push_back({"CIFAR-10, small std", {{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}}, 0});
    out.push_back({"CIFAR-100", {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}}, 0});
    out.push_back({"ImageNet", {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}, 0});
  }
  const size_t c = seen.mean.size();
  out.push_back({"the set's own", pixels, 0});
  out.push_back({"0.5 and 0.5", {std::vector<double>(c, 0.5), std::vector<double>(c, 0.5)}, 0});
  out.push_back({"none", {std::vector<double>(c, 0.0), std::vector<double>(c, 1.0)}, 0});
  for (NormalizationFit& fit : out) {
    fit.distance = distance(seen, expected(pixels, fit.normalization, 0, false));
    for (const bool black : {false, true})
      fit.distance = std::min(
          fit.distance, distance(seen, expected(pixels, fit.normalization, border_share(), black)));
  }
  std::stable_sort(out.begin() + 1, out.end(),
                   [](const auto& a, const auto& b) { return a.distance < b.distance; });
  return out;
}

std::vector<std::string> variant_doubts(const std::vector<VariantFit>& fits) {
  std::vector<std::string> out;
  if (fits[0].fit.layers.empty()) return out;
  const auto best = std::min_element(
      fits.begin(), fits.end(),
      [](const VariantFit& a, const VariantFit& b) { return a.fit.score() < b.fit.score(); });
  // The smallest ratio of a wrong to the right network that was measured is in docs/teachers.md.
  if (best != fits.begin() && best->fit.score() < 0.85 * fits[0].fit.score())
    out.push_back(fmt::format(
        "the stored statistics fit {} (means off by {:.2f} standard deviations), not {} ({:.2f}, "
        "worst at {}): the weights fit both by name; set model = \"{}\" unless you know better",
        best->model, best->fit.mean, fits[0].model, fits[0].fit.mean, fits[0].fit.worst().name,
        best->model));
  return out;
}

std::vector<std::string> statistics_doubts(nn::Classifier& net, const nn::ModelSpec& spec,
                                           const data::Normalization& pixels,
                                           const data::Normalization& given) {
  std::vector<std::string> out = variant_doubts(variant_fits(net, spec));
  const auto seen = input_moments(net, spec);
  if (!seen || pixels.mean.size() != seen->mean.size() || given.mean.size() != seen->mean.size())
    return out;
  const std::vector<NormalizationFit> norms = normalization_fits(*seen, pixels, given);
  if (norms[0].distance > 0.15 && norms[1].distance < 0.5 * norms[0].distance)
    out.push_back(fmt::format(
        "the first layer's statistics fit mean {:.4g} std {:.4g} ({}), not mean {:.4g} std {:.4g} "
        "(distance {:.2f} against {:.2f})",
        fmt::join(norms[1].normalization.mean, ","), fmt::join(norms[1].normalization.std, ","),
        norms[1].name, fmt::join(given.mean, ","), fmt::join(given.std, ","), norms[1].distance,
        norms[0].distance));
  return out;
}

}  // namespace mtcki
