#include "mtcki/run/workload.h"

#include "autograd/functions.h"
#include "mtcki/distillation/distiller.h"
#include "mtcki/synthesis/synthesizer.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "tensor/context.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"
#include "tensor/ops/cast.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

Rng rng(const char* what) { return {0, rng_stream(what), 0}; }

// The step, captured when that is asked for. Its result stays where the graph writes it.
Workload repeated(const WorkloadOptions& o, const Workload& step) {
  if (!o.graph || o.device.is_cpu()) return step;
  struct Captured {
    StepGraph graph{true};
    Variable result;
  };
  const auto captured = std::make_shared<Captured>();
  return [captured, step] {
    captured->graph.run("step", [&] { captured->result = step(); });
    return captured->result;
  };
}

Compute compute_of(const WorkloadOptions& o) {
  Compute c{.device = o.device, .precision = o.precision, .graph = o.graph};
  if (o.device.is_cuda()) c.read_every = 25;
  return c;
}

nn::ModelSpec spec_of(const std::string& model, const WorkloadOptions& o) {
  return {model, o.channels, o.size, o.classes};
}

std::shared_ptr<nn::Classifier> classifier(const std::string& model, const WorkloadOptions& o) {
  nn::Init init(0);
  std::shared_ptr<nn::Classifier> net = nn::make_classifier(spec_of(model, o), init);
  net->set_precision(o.precision);
  net->set_recompute(o.recompute);
  net->to(o.device);
  return net;
}

std::vector<std::string> teacher_names(const WorkloadOptions& o) {
  return o.teachers.empty() ? std::vector<std::string>{o.model} : o.teachers;
}

Tensor images(const WorkloadOptions& o) {
  const Tensor x = randn({o.batch, o.channels, o.size, o.size}, rng("workload/images"));
  return x.to(o.device).to(preferred_layout(o.device, DType::f32, o.channels));
}

Tensor labels(const WorkloadOptions& o) {
  return randint(0, o.classes, {o.batch}, rng("workload/labels")).to(o.device);
}

Workload inference(const WorkloadOptions& o) {
  const auto net = classifier(o.model, o);
  net->eval();
  return [net, x = images(o)] {
    const NoGradScope no_grad;
    const StageScope stage("forward");
    return (*net)(x);
  };
}

Workload train(const WorkloadOptions& o) {
  const auto net = classifier(o.model, o);
  const std::shared_ptr<optim::Optimizer> sgd =
      optim::make_sgd({optim::group_of(*net)}, {.lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4});
  return [net, sgd, x = images(o), y = labels(o)] {
    sgd->zero_grad();
    Variable loss;
    {
      const StageScope stage("forward");
      loss = cross_entropy((*net)(x), y);
    }
    {
      const StageScope stage("backward");
      loss.backward();
    }
    const StageScope stage("update");
    sgd->step();
    return loss;
  };
}

data::Normalization normalization(const WorkloadOptions& o) {
  const auto c = static_cast<size_t>(o.channels);
  return {std::vector<double>(c, 0.5), std::vector<double>(c, 0.25)};
}

std::shared_ptr<Teachers> make_teachers(const WorkloadOptions& o) {
  const auto list = std::make_shared<Teachers>();
  const std::vector<std::string> names = teacher_names(o);
  for (size_t m = 0; m < names.size(); ++m) {
    nn::Init init(0);
    const Teacher::Options options{.name = str("teacher", m, "_", names[m]),
                                   .spec = spec_of(names[m], o),
                                   .normalization = normalization(o)};
    std::unique_ptr<nn::Classifier> net = nn::make_classifier(options.spec, init);
    net->set_precision(o.precision);
    const NoGradScope no_grad;  // running statistics with some content
    for (int i = 0; i < 2; ++i)
      (*net)(randn({o.batch, o.channels, o.size, o.size}, rng("workload/images")));
    list->add(std::make_unique<Teacher>(options, std::move(net)));
  }
  list->to(o.device);
  return list;
}

double value_of(const Values& values, const char* name) {
  for (const auto& [key, value] : values)
    if (key == name) return value;
  return 0;
}

// Steps of the method's own synthesis; a batch that is full is finished as in a run.
Workload synthesis(const WorkloadOptions& o, SynthesisConfig config) {
  config.batch_size = o.batch;
  const Synthesizer::Options options{
      .channels = o.channels,
      .image_size = o.size,
      .num_classes = o.classes,
      .most_batches = std::max<int64_t>(1, config.bank_size / o.batch),
      .compute = compute_of(o)};
  const auto teachers = make_teachers(o);
  const auto synthesizer = std::make_shared<Synthesizer>(*teachers, config, options);
  return [teachers, synthesizer] {
    const Values values = synthesizer->step();
    if (synthesizer->batch_done()) {
      const StageScope stage("synthesis/finish");
      synthesizer->read();
      synthesizer->finish();
    }
    return Variable(Tensor::full({}, value_of(values, "loss")));
  };
}

Workload synthesis(const WorkloadOptions& o) {
  SynthesisConfig config;
  config.g_steps = 4;  // short, so that the bank has rows after a few steps
  config.bank_size = std::max(o.batch, o.bank);
  config.bank_draw = o.batch;
  return synthesis(o, config);
}

// The same step with the settings that leave the work which bench/baseline_torch.py does in PyTorch:
// generator in train mode, one pass of each frozen teacher over the images themselves, cross-entropy
// and the statistics loss of every batch norm, backward to generator and latents, Adam. Beyond that
// baseline it normalises the images for each teacher and keeps those of the lowest loss so far, so
// that a comparison can only be to its disadvantage.
Workload inversion(const WorkloadOptions& o) {
  SynthesisConfig config;
  config.g_steps = int64_t{1} << 40;  // one batch: neither weights nor moments start again
  config.bn_reduce = BnReduce::sum;
  config.loss["cr"] = 0;  // and with it the local view
  config.pad = 0;         // the global view is the image
  config.flip = false;
  return synthesis(o, config);
}

Workload distill_step(const WorkloadOptions& o) {
  const auto teachers = make_teachers(o);
  const auto student =
      std::make_shared<Student>("student", spec_of(o.model, o), normalization(o), 0);
  student->net().set_precision(o.precision);
  student->net().set_recompute(o.recompute);
  student->to(o.device);
  DistillConfig config;
  config.batch_size = o.batch;
  config.ts_ramp = 0;  // the contrast has its full weight from the first step on
  constexpr int64_t kTotal = 1000000;
  const auto distiller =
      std::make_shared<Distiller>(*teachers, *student, config, kTotal, 0, compute_of(o));
  const data::ImageSet set{
      .name = "random",
      .images = unit_to_u8(rand({2 * o.batch, o.channels, o.size, o.size}, rng("workload/images"))),
      .labels = randint(0, o.classes, {2 * o.batch}, rng("workload/labels"))};
  const std::shared_ptr<Replay> replay = make_replay({set, config, 0, 0, o.device});
  const auto step = std::make_shared<int64_t>(0);
  return [teachers, student, distiller, replay, step] {
    const Values values = distiller->step(*replay, (*step)++);
    return Variable(Tensor::full({}, value_of(values, "loss")));
  };
}

}  // namespace

std::vector<std::string> workload_steps() {
  return {"train", "inference", "inversion", "synthesis", "distill"};
}

Workload make_workload(const WorkloadOptions& o) {
  if (o.step == "train") return repeated(o, train(o));
  if (o.step == "inference") return repeated(o, inference(o));
  if (o.step == "inversion") return inversion(o);
  if (o.step == "synthesis") return synthesis(o);
  if (o.step == "distill") return distill_step(o);
  throw UsageError("unknown step \"" + o.step + "\"" + did_you_mean(o.step, workload_steps()));
}

}  // namespace mtcki
