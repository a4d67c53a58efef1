#include "mtcki/run/workload.h"

#include "autograd/functions.h"
#include "autograd/side_stream.h"
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
  Compute c;
  c.device = o.device;
  c.precision = o.precision;
  c.graph = o.graph;
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
  optim::SgdOptions sgd_options;
  sgd_options.lr = 0.01;
  sgd_options.momentum = 0.9;
  sgd_options.weight_decay = 5e-4;
  const std::shared_ptr<optim::Optimizer> sgd =
      optim::make_sgd({optim::group_of(*net)}, sgd_options);
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

// A frozen classifier whose running statistics have some content.
std::shared_ptr<nn::Classifier> frozen(const std::string& model, const WorkloadOptions& o) {
  const auto net = classifier(model, o);
  {
    const NoGradScope no_grad;
    const Tensor x = images(o);
    for (int i = 0; i < 2; ++i) (*net)(x);
  }
  net->eval();
  net->set_requires_grad(false);
  return net;
}

Workload inversion(const WorkloadOptions& o) {
  struct Asked {
    std::shared_ptr<nn::Classifier> net;
    std::vector<nn::BatchNorm2d*> norms;
  };
  std::vector<Asked> teachers;
  for (const std::string& name : teacher_names(o)) {
    Asked t{frozen(name, o), {}};
    t.norms = t.net->batch_norms();
    for (nn::BatchNorm2d* bn : t.norms) bn->keep_moments(true);
    teachers.push_back(std::move(t));
  }
  nn::Init init(0);
  nn::GeneratorSpec spec;
  spec.channels = o.channels;
  spec.image_size = o.size;
  const std::shared_ptr<nn::Generator> generator = nn::make_generator(spec, init);
  generator->set_precision(o.precision);
  generator->to(o.device);
  const Variable z(randn({o.batch, spec.nz}, rng("workload/latents")).to(o.device), true);
  optim::ParameterGroup latents;
  latents.parameters.emplace_back("z", z);
  optim::AdamOptions adam_options;
  adam_options.lr = 1e-3;
  adam_options.beta1 = 0.5;
  const std::shared_ptr<optim::Optimizer> adam =
      optim::make_adam({optim::group_of(*generator), latents}, adam_options);
  return [teachers, generator, z, adam, y = labels(o)] {
    adam->zero_grad();
    Variable made, loss;
    {
      const StageScope stage("generator");
      made = (*generator)(z);
    }
    std::vector<Variable> terms;
    Branches branches(teachers.size(), made.data().device());
    for (const Asked& t : teachers)
      branches.run([&] {
        Variable term;
        std::vector<Variable> inputs;
        {
          const StageScope stage("teacher");
          nn::Classifier::Output out = t.net->features(made, t.norms);
          term = cross_entropy(out.logits, y);
          inputs = std::move(out.taps);
        }
        const StageScope stage("statistics");
        std::vector<BnStatisticsInput> layers;
        for (size_t i = 0; i < inputs.size(); ++i) {
          nn::BatchNorm2d& bn = *t.norms[i];
          layers.push_back({inputs[i], bn.running_mean, bn.running_var, {}, {}, bn.take_moments()});
        }
        terms.push_back(add(term, bn_statistics(layers)));
      });
    branches.join();
    for (const Variable& term : terms) loss = loss.defined() ? add(loss, term) : term;
    {
      const StageScope stage("backward");
      loss.backward();
    }
    const StageScope stage("update");
    adam->step();
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
    Teacher::Options options;
    options.name = str("teacher", m, "_", names[m]);
    options.spec = spec_of(names[m], o);
    options.normalization = normalization(o);
    std::unique_ptr<nn::Classifier> net = nn::make_classifier(options.spec, init);
    net->set_precision(o.precision);
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

Workload synthesis(const WorkloadOptions& o) {
  SynthesisConfig config;
  config.batch_size = o.batch;
  config.g_steps = 4;  // short, so that the bank has rows after a few steps
  config.bank_size = std::max(o.batch, o.bank);
  config.bank_draw = o.batch;
  Synthesizer::Options options;
  options.channels = o.channels;
  options.image_size = o.size;
  options.num_classes = o.classes;
  options.compute = compute_of(o);
  options.most_batches = std::max<int64_t>(1, config.bank_size / o.batch);
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

Workload distill_step(const WorkloadOptions& o) {
  const auto teachers = make_teachers(o);
  const auto student =
      std::make_shared<Student>("student", spec_of(o.model, o), normalization(o), 0);
  student->net().set_precision(o.precision);
  student->net().set_recompute(o.recompute);
  student->to(o.device);
  DistillConfig config;
  config.batch_size = o.batch;
  constexpr int64_t kTotal = 1000000;
  const auto distiller =
      std::make_shared<Distiller>(*teachers, *student, config, kTotal, 0, compute_of(o));
  data::ImageSet set;
  set.name = "random";
  set.images = unit_to_u8(rand({2 * o.batch, o.channels, o.size, o.size}, rng("workload/images")));
  set.labels = randint(0, o.classes, {2 * o.batch}, rng("workload/labels"));
  const auto source = std::make_shared<BatchSource>(set, pool_loader(config, 0, 0), o.device);
  const auto step = std::make_shared<int64_t>(0);
  return [teachers, student, distiller, source, step] {
    const int64_t n = (*step)++;
    // Far enough for the contrast to have its full weight.
    const Values values = distiller->step(*source, n, kTotal / 2 + n);
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
  if (o.step == "inversion") return repeated(o, inversion(o));
  if (o.step == "synthesis") return synthesis(o);
  if (o.step == "distill") return distill_step(o);
  throw UsageError("unknown step \"" + o.step + "\"" + did_you_mean(o.step, workload_steps()));
}

}  // namespace mtcki
