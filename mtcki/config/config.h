// The configuration of a run: plain structs, and one `visit` per struct that names every key once,
// with its range and help. Reading TOML, overrides, printing the resolved file, suggestions for
// typos and the documentation all walk the same visit.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/mix.h"
#include "mtcki/config/loss_rows.h"
#include "tensor/dtype.h"

namespace mtcki {

// How a network is trained: what [train] and [distill] share.
struct SgdConfig {
  double lr = 0.1, momentum = 0.9, weight_decay = 1e-4, min_lr = 0.0, clip_norm = 0.0;
  bool nesterov = false;
  std::string schedule = "cosine";
  std::vector<int64_t> milestones = {};  // epochs, multistep
  double gamma = 0.1;
  double ema = 0.0;  // decay of averaged weights; 0: off
};

// Supervised training (teachers).
struct TrainConfig : SgdConfig {
  TrainConfig() : SgdConfig{.weight_decay = 5e-4, .nesterov = true} {}

  int64_t epochs = 200, batch_size = 128;
  int64_t accumulate = 1;  // parts of a batch whose gradients are added
  double label_smoothing = 0.0;
  double warmup_epochs = 0.0;
  int64_t pad = 4;
  bool flip = true;
  int64_t eval_every = 1;        // epochs
  int64_t checkpoint_every = 0;  // steps; 0: each epoch
};

struct DataConfig {
  std::string name = "cifar10", dir;
  int64_t size = 0;                         // image files become size x size; 0: as they are
  std::string fit = "crop";                 // crop | pad
  int64_t channels = 0;                     // imagefolder, none: 1 or 3; 0: 3
  int64_t classes = 0, pixels = 0;          // none: of the teachers
  int64_t skip_bad = 0;                     // unreadable image files that are left out
  std::string class_order = "sorted";       // sorted | file | number
  int64_t train_limit = 0, test_limit = 0;  // 0: all
  int64_t holdout = 0;                      // training images that stand in for the test images
  int64_t loader_threads = 1;

  bool is_none() const { return name == "none"; }  // there are no real images at all
};

struct TeacherConfig {
  std::string name;         // unique; default: the model's name
  std::string model;        // registry name
  std::string weights;      // file to import; empty: train it here
  std::string weights_key;  // where in the file: dotted names and indices; empty: found
  std::string name_map;     // "" | torchvision | datafree | kuangliu | FILE
  std::vector<double> mean,
      std;              // its own input normalisation; empty: file's metadata, else the set's
  double weight = 1.0;  // w_m before normalisation
};

struct StudentConfig {
  std::string name, model;
};

// Modes; the keys table (keys.cpp) has their names and what they mean.
enum class BnReduce { sum, layer, init };
enum class ClsMode { each, ens };
enum class AdvMode { kl_agree, kl_disagree, js, adi };
enum class Targets { balanced, uniform };
enum class CrMode { cat, each, first };
enum class CrFeatures { stage, bn };
enum class Best { select, total, last };
enum class Quant { round, trunc };
enum class Views { crop, roll };
enum class Meta { fomaml, reptile };
enum class ClassEmbedding { teachers, orthogonal };
enum class Fuse { mean, prob, conf, entropy };
enum class TeacherBn { running, batch };

// docs/method.md: losses on the images, the stages.
struct SynthesisConfig {
  int64_t batches = 196, batch_size = 256, g_steps = 200;  // batches: before there is a student
  std::string source = "generator";  // what is optimised: synthesis/sources/sources.cpp
  std::vector<std::string> from;     // source sets: folders of runs
  std::string generator = "cmi";     // nn::generator_names()
  int64_t nz = 256, ngf = 64;
  double lr_g = 1e-3, lr_z = 0.0;  // 0: lr_g
  double beta1 = 0.5, beta2 = 0.999;
  bool clip = true;          // pixels into the range of an image after every step
  Meta meta = Meta::fomaml;  // of a meta-generator
  int64_t reset_first = 0;   // batch at which its first layers are redrawn; 0: none
  ClassEmbedding class_embedding = ClassEmbedding::teachers;  // of a noisy source
  int64_t g_life = 1;        // batches before the generator is re-initialised; 0: never
  int64_t g_life_first = 0;  // the same before there is a student; 0: g_life
  double g_ema = 0.0;        // decay of the averaged generator that samples are drawn from; 0: off
  double exchange = 0.0;     // how often channels come from another image: channel_exchange.h
  LossWeights loss{inversion_terms()};  // synthesis.bn, synthesis.cls, ...: losses/terms.cpp
  double bn_mmt = 0.0;                  // kappa
  BnReduce bn_reduce = BnReduce::layer;
  double bn_first = 1.0;  // factor of every teacher's first layer
  ClsMode cls_mode = ClsMode::each;
  double cls_focus = 0.0;  // exponent of what a sample counts in mode ens; 0: all alike
  AdvMode adv_mode = AdvMode::kl_agree;
  double adv_temperature = 1.0;  // of its divergences, and of adv_kl
  bool adv_each = false;
  Targets targets = Targets::balanced;
  CrMode cr_mode = CrMode::cat;
  CrFeatures cr_features = CrFeatures::stage;
  double cr_tau = 0.1;
  int64_t bank_size = 40960, bank_draw = 4096, head_dim = 256;
  DType bank_dtype = DType::f32;  // f32 | bf16
  Best best = Best::select;
  Quant quant = Quant::round;
  Views views = Views::crop;
  double min_crop = 0.25;  // local view area
  int64_t pad = 4;
  bool flip = true;
  int64_t teachers_per_step = 0;  // 0: all
  bool save_logits = false;
  int64_t checkpoint_every = 1;  // batches
};

// docs/method.md: losses on the student.
struct DistillConfig : SgdConfig {
  int64_t epochs = 200, steps_per_epoch = 0, batch_size = 128;  // 0: pool/batch
  int64_t views = 0;  // whose teacher outputs are kept; 0: teachers are asked at every step
  data::Mix mix = data::Mix::none;    // two images in one: replay pool
  std::string replay = "pool";        // what the student is shown: distillation/replay/replays.cpp
  double priority = 0.0;              // of images of replay pool by their last loss; 0: shuffled
  LossWeights loss{student_terms()};  // distill.kd, distill.ts, ...: losses/student_terms.cpp
  double temperature = 20.0;
  Fuse fuse = Fuse::mean;
  double agree = 0.0;  // exponent of the share of teachers who decide as all together; 0: off
  TeacherBn teacher_bn = TeacherBn::running;
  double ts_tau = 0.1;
  int64_t ts_queue = 4096;
  double ts_ramp = 0.1;
  int64_t pad = 4;
  bool flip = true;
  int64_t eval_every = 1, checkpoint_every = 0;
};

// When images are made while a student trains: distillation/rounds.h.
struct RoundsConfig {
  int64_t per_epoch = 0;  // 0: never, the set is made before
  int64_t batches = 1;    // synthesised at the beginning of a round
  bool keep_history = true;
  double weight_step = 0.0;  // of the teachers' weights: distillation/teacher_weights.h
};

struct MetricsConfig {
  std::string classifier_model;    // held-out classifier for FID-C / IS-C; empty: none
  std::string classifier_weights;  // empty: trained on the real set with [train]
  int64_t samples = 5000;
  int64_t neighbours = 20;
};

struct RunConfig {
  std::string name = "run", out = "runs";
  uint64_t seed = 0;
  std::string device = "auto";
  std::string precision = "f32";  // f32 | tf32 | bf16
  std::string conv = "auto";      // auto | direct
  bool deterministic = true, autotune = false, recompute = false;
  std::string graph = "auto";  // auto | on | off
  int64_t read_every = 0;      // steps; 0: 1 on the CPU, 25 on the GPU
  int64_t threads = 0;         // 0: OMP_NUM_THREADS, or all cores
  int64_t keep_checkpoints = 2;
  bool tensorboard = true;
  DataConfig data;
  TrainConfig train;
  std::vector<TeacherConfig> teachers;
  SynthesisConfig synthesis;
  RoundsConfig rounds;
  DistillConfig distill;
  std::vector<StudentConfig> students;
  MetricsConfig metrics;
};

// Reads TOML files, and KEY=VALUE ("synthesis.g_steps=50", "teachers.0.model=vgg8") between them,
// in order, then the overrides. UsageError with file:line and the nearest key for unknown keys, wrong
// types, values out of range and impossible combinations; nothing is read or written before.
// origins: who gave each key its value, "demo.toml:12" or "command line"; the others have defaults.
using ConfigOrigins = std::map<std::string, std::string>;
RunConfig load_config(const std::vector<std::string>& files,
                      const std::vector<std::string>& overrides, ConfigOrigins* origins = nullptr);
// A file may have '=' in its name only when it exists.
bool is_override(const std::string& input);
void validate(const RunConfig& config);
// How many of the synthetic images students are measured on when data.name is "none":
// data.holdout, or a tenth.
int64_t held_out_images(const RunConfig& config);
// The losses of a set that is made before there is a student: without those that need one.
SynthesisConfig without_student(SynthesisConfig config);
// Complete TOML text; loading it gives the same config and the same hash. With origins each line
// ends in a comment that names its own.
std::string to_toml(const RunConfig& config, const ConfigOrigins* origins = nullptr);
std::string config_sha256(
    const RunConfig& config);  // of what affects results (not out, device, threads...)
// The same over some sections or keys only, for the marker of a stage: {"seed", "data",
// "teachers"}.
std::string config_sha256(const RunConfig& config, const std::vector<std::string>& sections);
// Markdown table of every key: default, range, meaning.
std::string config_reference();

}  // namespace mtcki
