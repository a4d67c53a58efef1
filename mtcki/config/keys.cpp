#include "mtcki/config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "mtcki/config/table_names.h"
#include "nn/models/model.h"

namespace mtcki::config_keys {

namespace {

constexpr double kMost = 1e15;  // no count of ours is larger; keeps products inside int64

Range at_least(double low) { return {low, kMost, false}; }
Range above(double low) { return {low, std::numeric_limits<double>::max(), true}; }
Range number_from(double low) { return {low, std::numeric_limits<double>::max(), false}; }
Range between(double low, double high) { return {low, high, false}; }
const Range kAny{-std::numeric_limits<double>::max(), std::numeric_limits<double>::max(), false};

class Walk {
 public:
  explicit Walk(std::string prefix) : prefix_(std::move(prefix)) {}

  // Numbers and lists of numbers, with the range of a value.
  template <class T>
  Walk& key(const char* name, T& target, const Range& range, const std::string& help) {
    return add(name, &target, range, {}, help);
  }
  Walk& key(const char* name, bool& target, const char* help) {
    return add(name, &target, {}, {}, help);
  }
  Walk& key(const char* name, std::vector<std::string>& target, const char* help) {
    return add(name, &target, {}, {}, help);
  }
  Walk& key(const char* name, std::string& target, const char* help) {
    return add(name, &target, {}, {}, help);
  }
  Walk& key(const char* name, std::string& target, std::vector<std::string> choices,
            const char* help) {
    return add(name, &target, {}, std::move(choices), help);
  }
  template <class E>
  requires std::is_enum_v<E> Walk& key(const char* name, E& target,
                                       std::vector<std::pair<const char*, E>> choices,
                                       const char* help) {
    std::vector<std::string> names;
    for (const auto& choice : choices) names.emplace_back(choice.first);
    Mode mode;
    mode.set = [&target, choices](size_t i) { target = choices[i].second; };
    mode.get = [&target, choices] {
      size_t i = 0;
      while (choices.at(i).second != target) ++i;
      return i;
    };
    return add(name, std::move(mode), {}, std::move(names), help);
  }
  // The key before this call changes how a run goes, not what comes out of it.
  Walk& inert() { return inert_if(true); }
  // The same while another key leaves it without meaning.
  Walk& inert_if(bool holds) {
    if (holds) out_.back().affects_results = false;
    return *this;
  }
  // Its default is what runs did before there was the key: they keep their hash.
  Walk& neutral() {
    out_.back().neutral = true;
    return *this;
  }
  std::vector<Field> take() { return std::move(out_); }

 private:
  Walk& add(const char* name, Field::Target target, const Range& range,
            std::vector<std::string> choices, const std::string& help) {
    out_.push_back({prefix_ + name, std::move(target), range, std::move(choices), help});
    return *this;
  }
  std::string prefix_;
  std::vector<Field> out_;
};

void visit(Walk& w, DataConfig& c) {
  w.key("name", c.name,
        "real set: teachers train on it, everybody is tested on it (mtcki data list); none: there "
        "is no real image, teachers are imported")
      .key("dir", c.dir, "folder of its files; empty: $MTCKI_DATA_DIR/<name> or data/<name>")
      .inert_if(c.name != "imagefolder")  // whose name does not say which images they are
      .key("size", c.size, between(0, 4096),
           "imagefolder, tiny-imagenet: bring every image to size x size; 0: they have one size")
      .key("fit", c.fit, {"crop", "pad"}, "with size: the centre square, or all of it on black")
      .key("channels", c.channels, between(0, 3),
           "imagefolder: 1 reads grey, 3 colour; none: of the teachers' images; 0: 3")
      .neutral()
      .key("classes", c.classes, between(0, 1e6), "none: how many classes the teachers know")
      .neutral()
      .key("pixels", c.pixels, between(0, 4096), "none: height and width of the teachers' images")
      .neutral()
      .key("skip_bad", c.skip_bad, at_least(0),
           "imagefolder, tiny-imagenet: leave out up to n files that cannot be read, and name them")
      .neutral()
      .key("class_order", c.class_order, {"sorted", "file", "number"},
           "classes by sorted id or name, as the field; tiny-imagenet: file, by line of wnids.txt; "
           "imagefolder: number, by the numbers in the names (2 before 10)")
      .inert_if((c.name != "tiny-imagenet" && c.class_order != "number") ||
                c.class_order == "file")  // of earlier versions
      .key("train_limit", c.train_limit, at_least(0), "use the first n training images; 0: all")
      .key("test_limit", c.test_limit, at_least(0), "use the first n test images; 0: all")
      .key(
          "holdout", c.holdout, at_least(0),
          "validation: n of the training images, which no teacher sees then, take the place of the "
          "test images; the last ones (image files: spread over the classes); 0: none. data.name "
          "none: n of the synthetic images, which no student sees, drawn by the seed; 0: a tenth")
      .neutral()
      .key("loader_threads", c.loader_threads, between(0, 64), "prefetch threads; 0: none")
      .inert();
}

void sgd_keys(Walk& w, SgdConfig& c, const std::vector<std::string>& schedules) {
  w.key("lr", c.lr, above(0), "peak learning rate")
      .key("momentum", c.momentum, between(0, 0.9999), "SGD momentum")
      .key("weight_decay", c.weight_decay, between(0, 1), "L2 penalty, in the gradient")
      .key("min_lr", c.min_lr, number_from(0), "where cosine ends")
      .key("clip_norm", c.clip_norm, number_from(0), "largest gradient norm; 0: no clipping")
      .key("nesterov", c.nesterov, "Nesterov momentum")
      .key("schedule", c.schedule, schedules, "how the learning rate changes over the steps")
      .key("ema", c.ema, between(0, 0.999999), "decay of averaged weights; 0: off");
}

void milestone_keys(Walk& w, SgdConfig& c, bool inert) {
  w.key("milestones", c.milestones, at_least(1), "epochs after which lr is multiplied by gamma")
      .inert_if(inert)
      .key("gamma", c.gamma, between(0, 1), "factor at each milestone")
      .inert_if(inert);
}

void visit(Walk& w, TrainConfig& c) {
  w.key("epochs", c.epochs, at_least(1), "passes over the training set")
      .key("batch_size", c.batch_size, at_least(2), "images per step")
      .key("accumulate", c.accumulate, between(1, 65536),
           "parts that a batch is computed in, one after the other, for less memory; their "
           "gradients are added, batch norm normalises each part by itself")
      .neutral();
  sgd_keys(w, c, {"constant", "cosine", "multistep", "onecycle"});
  w.key("label_smoothing", c.label_smoothing, between(0, 0.9), "share of the target spread evenly");
  milestone_keys(w, c, false);
  w.key("warmup_epochs", c.warmup_epochs, number_from(0), "linear warm-up from 0")
      .key("pad", c.pad, between(0, 32), "random crop after padding by this many zeros")
      .key("flip", c.flip, "random horizontal mirror")
      .key("eval_every", c.eval_every, at_least(1), "epochs between tests")
      .key("checkpoint_every", c.checkpoint_every, at_least(0), "steps; 0: once per epoch")
      .inert();
}

void visit(Walk& w, TeacherConfig& c) {
  w.key("name", c.name, "unique; default: the model's name")
      .key("model", c.model, "architecture (mtcki summary --list)")
      .key("weights", c.weights, "file to import (.safetensors, .pth, .th); empty: trained here")
      .key("weights_key", c.weights_key,
           "where in the file the weights are, as state_dict_ema or 0.model; empty: found")
      .neutral()
      .key("name_map", c.name_map,
           "renaming on import: torchvision, timm, datafree, kuangliu, weiaicunzai, mmpretrain, a "
           "file")
      .key("mean", c.mean, kAny,
           "its input normalisation; empty: the file's metadata, else the set's")
      .key("std", c.std, above(0), "standard deviations of that normalisation")
      .key("weight", c.weight, number_from(0), "weight w_m, normalised over the teachers");
}

void visit(Walk& w, StudentConfig& c) {
  w.key("name", c.name, "unique; default: the model's name")
      .key("model", c.model, "architecture (mtcki summary --list)");
}

template <class Row>
void loss_weights(Walk& w, const std::vector<Row>& rows, LossWeights& loss) {
  // A weight of 0 is as if there were no such term.
  for (const Row& row : rows)
    w.key(row.key, loss[row.key], number_from(0), fmt::format("{}: {}", row.help, row.formula))
        .inert_if(loss[row.key] == 0);
}

// What is optimised.
void source_keys(Walk& w, SynthesisConfig& c) {
  w.key("source", c.source, source_names(),
        "what is optimised: a generator with the latents of a batch; pixels; a meta_generator "
        "that batches begin at; a generator alone, which images are sampled from at any time; a "
        "generator whose noisy layers make images from their labels; a generator alone whose maps "
        "are kept with the images, for replay maps; or nothing is: real "
        "training images, noise, or the finished sets of other runs (from)")
      .neutral()
      .key("from", c.from,
           "source sets: folders of these runs; relative ones from the folder of this run")
      .neutral()
      .key("generator", c.generator, nn::generator_names(), "generator architecture")
      .key("nz", c.nz, between(1, 65536), "latent dimensions")
      .key("ngf", c.ngf, between(1, 4096), "generator width")
      .key("lr_g", c.lr_g, above(0),
           "learning rate of the generator or the pixels, and of the contrast head")
      .key("lr_z", c.lr_z, number_from(0), "learning rate of the latents; 0: lr_g")
      .key("beta1", c.beta1, between(0, 0.99999), "decay of the mean of the gradients in that Adam")
      .neutral()
      .key("beta2", c.beta2, between(0, 0.99999), "decay of the second moments in that Adam")
      .neutral()
      .key("clip", c.clip, "of source pixels: into the range of an image after every step")
      .neutral()
      .key("meta", c.meta, {{"fomaml", Meta::fomaml}, {"reptile", Meta::reptile}},
           "how a meta-generator learns from the steps of a batch")
      .inert_if(c.source != "meta_generator")
      .key("reset_first", c.reset_first, at_least(0),
           "batch at which the first layers of a meta-generator are redrawn; 0: none")
      .neutral()
      .key("class_embedding", c.class_embedding,
           {{"teachers", ClassEmbedding::teachers}, {"orthogonal", ClassEmbedding::orthogonal}},
           "what stands for a class in a noisy source: its rows of the teachers' classifiers, or "
           "a random vector orthogonal to the others")
      .inert_if(c.source != "noisy")
      .key("g_life", c.g_life, at_least(0), "batches before the generator is redrawn; 0: never")
      .key("g_life_first", c.g_life_first, at_least(0),
           "the same before there is a student; 0: g_life")
      .neutral()
      .key("g_ema", c.g_ema, between(0, 0.999999),
           "decay of averaged weights of source sampler or maps, which a student's images are made "
           "with; 0: off")
      .neutral()
      .key("exchange", c.exchange, between(0, 1),
           "how often half of the channels of an image's map come from another image: source "
           "generator, the share of the kept images; maps, of the student's steps")
      .neutral();
}

void visit(Walk& w, SynthesisConfig& c) {
  w.key("batches", c.batches, at_least(0),
        "batches of images to synthesise before there is a student; 0: none")
      .key("batch_size", c.batch_size, at_least(2), "images per batch")
      .key("g_steps", c.g_steps, at_least(1), "optimiser steps per batch");
  source_keys(w, c);
  loss_weights(w, inversion_terms(), c.loss);
  w.key("bn_mmt", c.bn_mmt, between(0, 0.9999), "momentum kappa of the statistics; 0: plain")
      .key("bn_reduce", c.bn_reduce,
           {{"sum", BnReduce::sum}, {"layer", BnReduce::layer}, {"init", BnReduce::init}},
           "weight of a teacher's layers: plain sum, by their number, by the first loss")
      .key("bn_first", c.bn_first, number_from(0), "factor of every teacher's first layer")
      .neutral()
      .key("cls_mode", c.cls_mode, {{"each", ClsMode::each}, {"ens", ClsMode::ens}},
           "every teacher confident, or the fused logits")
      .key("cls_focus", c.cls_focus, number_from(0),
           "with cls_mode ens a sample counts (1 - p_y)^this; 0: all alike")
      .neutral()
      .key("adv_mode", c.adv_mode,
           {{"kl-agree", AdvMode::kl_agree},
            {"kl-disagree", AdvMode::kl_disagree},
            {"js", AdvMode::js},
            {"adi", AdvMode::adi}},
           "form of the disagreement: divergence where both decide alike, or where they do not; "
           "1 - JS; the same as DeepInversion's code has it")
      .key("adv_temperature", c.adv_temperature, above(0), "T of the divergences of adv and adv_kl")
      .neutral()
      .key("adv_each", c.adv_each,
           "average the disagreement over teachers, not of the fused logits")
      .key("targets", c.targets, {{"balanced", Targets::balanced}, {"uniform", Targets::uniform}},
           "labels of a batch")
      .key("cr_mode", c.cr_mode,
           {{"cat", CrMode::cat}, {"each", CrMode::each}, {"first", CrMode::first}},
           "contrast on all teachers' features together, on each alone, on the first only")
      .key("cr_features", c.cr_features, {{"stage", CrFeatures::stage}, {"bn", CrFeatures::bn}},
           "inputs of the stages, or of every BN")
      .key("cr_tau", c.cr_tau, above(0), "contrast temperature")
      .key("bank_size", c.bank_size, at_least(1), "rows of the history bank")
      .key("bank_draw", c.bank_draw, at_least(0), "rows drawn from it per step")
      .key("head_dim", c.head_dim, between(1, 65536), "output width of the contrast head")
      .key("bank_dtype", c.bank_dtype, {{"f32", DType::f32}, {"bf16", DType::bf16}},
           "storage of the bank")
      .key("best", c.best, {{"select", Best::select}, {"total", Best::total}, {"last", Best::last}},
           "images kept: lowest loss without, or with, the disagreement; of the last step")
      .key("quant", c.quant, {{"round", Quant::round}, {"trunc", Quant::trunc}},
           "how images become bytes")
      .key("views", c.views, {{"crop", Views::crop}, {"roll", Views::roll}},
           "global view: each image cropped after padding, or the batch shifted in a circle")
      .neutral()
      .key("min_crop", c.min_crop, between(0.01, 1), "smallest area of the local view")
      .key("pad", c.pad, between(0, 32),
           "padding of the global view's crop, or how far it is shifted")
      .key("flip", c.flip, "mirror the views at random")
      .key("teachers_per_step", c.teachers_per_step, at_least(0),
           "random teachers per step; 0: all")
      .key("save_logits", c.save_logits, "keep the teachers' logits with the images")
      .key("checkpoint_every", c.checkpoint_every, at_least(1), "batches between checkpoints")
      .inert();
}

void visit(Walk& w, RoundsConfig& c) {
  w.key(
       "per_epoch", c.per_epoch, at_least(0),
       "rounds in each of distill.epochs: synthesis with the student as it is, then an equal share "
       "of distill.steps_per_epoch; 0: none, the set is made before")
      .key("batches", c.batches, at_least(1), "batches of synthesis per round")
      .inert_if(c.per_epoch == 0)
      .key("keep_history", c.keep_history,
           "the contrast's bank and head go on from the set made before; else they begin anew")
      .neutral()
      .key(
          "weight_step", c.weight_step, between(0, 1),
          "how far a batch moves the teachers' weights when each round learns them from all images "
          "so far; 0: they stay")
      .neutral();
}

void visit(Walk& w, DistillConfig& c) {
  w.key("epochs", c.epochs, at_least(1), "epochs of distillation")
      .key("steps_per_epoch", c.steps_per_epoch, at_least(0), "steps of an epoch; 0: set / batch")
      .key("batch_size", c.batch_size, at_least(2), "images per step")
      .key("views", c.views, at_least(0),
           "crops and mirrors of each image, in turn by pass, whose teacher outputs are made once "
           "and kept in memory; 0: new ones in every pass, teachers are asked at every step")
      .neutral();
  sgd_keys(w, c, {"constant", "cosine", "multistep", "onecycle"});
  milestone_keys(w, c, c.milestones.empty());
  w.key("replay", c.replay, replay_names(),
        "what is shown: the images that were made and kept, cropped and mirrored; fresh ones in "
        "every step, as they are; or what the generator makes of the maps that were kept")
      .neutral()
      .key("priority", c.priority, number_from(0),
           "replay pool draws images in proportion to (last loss)^this; 0: shuffled passes")
      .neutral()
      .key("mix", c.mix,
           {{"none", data::Mix::none}, {"mixup", data::Mix::mixup}, {"cutmix", data::Mix::cutmix}},
           "of replay pool: beside each image a second one, blended in or in a box of it; the "
           "teachers answer to what is shown")
      .neutral();
  loss_weights(w, student_terms(), c.loss);
  w.key("temperature", c.temperature, above(0), "T of the fused distillation loss")
      .key("fuse", c.fuse,
           {{"mean", Fuse::mean},
            {"prob", Fuse::prob},
            {"conf", Fuse::conf},
            {"entropy", Fuse::entropy}},
           "how teachers become one target")
      .key("agree", c.agree, number_from(0),
           "in kd an image counts (share of the teachers that decide as all together)^this; 0: all "
           "alike")
      .neutral()
      .key("teacher_bn", c.teacher_bn,
           {{"running", TeacherBn::running}, {"batch", TeacherBn::batch}},
           "teachers normalise by the statistics of their training, or by those of the batch they "
           "label (a process's share of it)")
      .neutral()
      .key("ts_tau", c.ts_tau, above(0), "temperature of the teacher/student contrast")
      .key("ts_queue", c.ts_queue, at_least(0), "past keys kept per teacher")
      .key("ts_ramp", c.ts_ramp, between(0, 1), "share of the steps over which its weight rises")
      .key("pad", c.pad, between(0, 32), "random crop after padding by this many zeros")
      .key("flip", c.flip, "random horizontal mirror")
      .key("eval_every", c.eval_every, at_least(1), "epochs between tests")
      .key("checkpoint_every", c.checkpoint_every, at_least(0), "steps; 0: once per epoch")
      .inert();
}

void visit(Walk& w, MetricsConfig& c) {
  w.key("classifier_model", c.classifier_model,
        "held-out classifier of FID-C and IS-C; empty: these are not computed")
      .key("classifier_weights", c.classifier_weights,
           "weight file of that classifier; empty: train one with the settings of [train]")
      .key("samples", c.samples, at_least(2), "images compared")
      .key("neighbours", c.neighbours, between(0, 500),
           "synthetic images that the report shows beside their nearest real ones; 0: none")
      .inert();
}

void visit(Walk& w, RunConfig& c) {
  w.key("name", c.name, "name of the run, and of its folder")
      .inert()
      .key("out", c.out, "where run folders go")
      .inert()
      .key("seed", c.seed, between(0, 9.2e18), "seed of every random draw")
      .key("device", c.device, "auto, cpu, cuda or cuda:<index>")
      .inert()
      .key("precision", c.precision, {"f32", "tf32", "bf16"},
           "of convolutions and products; tf32 is f32 on the CPU")
      .neutral()
      .key("conv", c.conv, {"auto", "direct"},
           "on the CPU: auto uses Winograd where it is faster, direct never")
      .neutral()
      .key("deterministic", c.deterministic,
           "on the GPU: only kernels that repeat bit for bit; it costs next to nothing")
      .inert()
      .key("autotune", c.autotune, "on the GPU: time the candidates of each convolution once")
      .inert()
      .key("recompute", c.recompute,
           "outputs of batch norm are computed again in the backward, not kept: the same bits in "
           "less memory")
      .inert()
      .key("graph", c.graph, {"auto", "on", "off"},
           "on the GPU: capture steps and repeat them; auto: on")
      .inert()
      .key("read_every", c.read_every, at_least(0),
           "steps whose losses are read from the GPU together; 0: 25, on the CPU always 1")
      .inert()
      .key("threads", c.threads, between(0, 4096),
           "CPU threads; 0: OMP_NUM_THREADS, or all cores (ranks of a job share them)")
      .inert()
      .key("keep_checkpoints", c.keep_checkpoints, between(2, 1000), "checkpoints kept per stage")
      .inert()
      .key("tensorboard", c.tensorboard, "write TensorBoard event files")
      .inert();
}

template <class T>
std::vector<Field> walk(T& c, const std::string& prefix) {
  Walk w(prefix), unset(prefix);
  T defaults;
  visit(w, c);
  visit(unset, defaults);
  std::vector<Field> out = w.take();
  const std::vector<Field> before = unset.take();
  for (size_t i = 0; i < out.size(); ++i)
    if (out[i].neutral && out[i].value() == before[i].value()) out[i].affects_results = false;
  return out;
}

}  // namespace

std::string Range::to_string() const {
  const bool has_low = low > -1e300, has_high = high < kMost;
  if (has_low && has_high) return fmt::format("{}{} .. {}", open_low ? "above " : "", low, high);
  if (has_low) return fmt::format("{} {}", open_low ? ">" : ">=", low);
  return has_high ? fmt::format("<= {}", high) : "";
}

std::vector<Field> fields(TeacherConfig& teacher, const std::string& prefix) {
  return walk(teacher, prefix);
}
std::vector<Field> fields(StudentConfig& student, const std::string& prefix) {
  return walk(student, prefix);
}

std::vector<Field> fields(RunConfig& c) {
  std::vector<Field> out = walk(c, "");
  const auto append = [&out](std::vector<Field> more) {
    std::move(more.begin(), more.end(), std::back_inserter(out));
  };
  append(walk(c.data, "data."));
  append(walk(c.train, "train."));
  for (size_t i = 0; i < c.teachers.size(); ++i)
    append(walk(c.teachers[i], fmt::format("teachers.{}.", i)));
  append(walk(c.synthesis, "synthesis."));
  append(walk(c.rounds, "rounds."));
  append(walk(c.distill, "distill."));
  for (size_t i = 0; i < c.students.size(); ++i)
    append(walk(c.students[i], fmt::format("students.{}.", i)));
  append(walk(c.metrics, "metrics."));
  return out;
}

const std::vector<std::string>& sections() {
  static const std::vector<std::string> names = {"data",   "train",   "teachers", "synthesis",
                                                 "rounds", "distill", "students", "metrics"};
  return names;
}

bool is_array(const std::string& section) { return section == "teachers" || section == "students"; }

std::string index_free(const std::string& path) {
  std::string out;
  std::istringstream in(path);
  for (std::string part; std::getline(in, part, '.');) {
    if (!part.empty() && std::ranges::all_of(part, ::isdigit)) continue;
    out += (out.empty() ? "" : ".") + part;
  }
  return out;
}

}  // namespace mtcki::config_keys
