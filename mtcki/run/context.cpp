#include "mtcki/run/context.h"

#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "data/sets/digest.h"
#include "data/sets/holdout.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/class_order.h"
#include "mtcki/run/no_data.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/training/checkpoint.h"
#include "mtcki/training/evaluate.h"
#include "tensor/comm.h"
#include "tensor/kernels/settings.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

void write_marker(const std::string& dir, const std::string& sha, json content,
                  const std::vector<std::string>& files) {
  content["config_sha256"] = sha;
  if (communicator().is_root()) {
    json& sums = content["files"] = json::object();
    for (const std::string& file : files) sums[file] = data::crc32c_file(dir + "/" + file);
    data::write_sealed_json(dir + "/done.json", content);
  }
  communicator().barrier();  // what the first rank wrote in this stage is there for all
}

std::optional<json> read_marker(const std::string& dir, const std::string& sha) {
  const std::string path = dir + "/done.json";
  std::error_code ec;
  if (!fs::exists(path, ec)) return std::nullopt;
  json marker = data::read_sealed_json(path);
  if (!marker.is_object() || !marker.contains("config_sha256") || !marker.contains("files"))
    throw DataError(str(path, ": damaged; delete it to do this stage again"));
  if (marker["config_sha256"] != sha)
    throw UsageError(str(dir,
                         ": was finished under another configuration; give this run another name, "
                         "or delete the folder to do the stage again"));
  for (const auto& [name, sum] : marker["files"].items()) {
    const std::string file = dir + "/" + name;
    if (data::file_exists(file) && sum == data::crc32c_file(file)) continue;
    // The last checkpoint makes these again; what others depend on takes the whole stage.
    const bool made_last = name == "model.safetensors" || name == "confusion.json";
    throw DataError(str(file, ": missing, or not what the stage wrote; delete ",
                        made_last ? path : "the folder \"" + dir + "\"",
                        " to do this stage again"));
  }
  return marker;
}

RunContext::RunContext(const RunConfig& config, std::string folder)
    : config_(config), compute_(compute_of(config)), folder_(std::move(folder)) {
  if (config_.teachers.empty())
    throw UsageError("no teachers: add a [[teachers]] table with model = \"...\"");
  math_settings().winograd = config_.conv == "auto";
}

StageJob RunContext::job(const std::string& stage, const std::string& dir,
                         const std::string& sha) const {
  return {stage,   dir, sha, config_.seed, config_.data.loader_threads, config_.keep_checkpoints,
          compute_};
}

std::string RunContext::teacher_sha(const TeacherConfig& t) const {
  RunConfig one = config_;
  one.teachers = {t};
  one.teachers[0].weight = 1;  // its weight among the others does not change it
  return t.weights.empty()
             ? config_sha256(one, {"precision", "conv", "seed", "data", "train", "teachers"})
             : config_sha256(one, {"precision", "conv", "data", "teachers"});
}

std::string RunContext::synthesis_sha() const {
  RunConfig before = config_;
  before.synthesis = without_student(config_.synthesis);
  return config_sha256(before,
                       {"precision", "conv", "seed", "data", "train", "teachers", "synthesis"});
}

std::string RunContext::student_sha(const StudentConfig& s) const {
  RunConfig one = config_;
  one.students = {s};
  return config_sha256(one, {"precision", "conv", "seed", "data", "train", "teachers", "synthesis",
                             "rounds", "distill", "students"});
}

std::string RunContext::classifier_sha() const {
  return config_sha256(config_, {"precision", "conv", "seed", "data", "train",
                                 "metrics.classifier_model", "metrics.classifier_weights"});
}

data::DatasetSpec dataset_spec(const RunConfig& c, const std::string& split, int64_t limit) {
  return {.name = c.data.name,
          .dir = c.data.dir,
          .split = split,
          .limit = limit,
          .seed = c.seed,
          .size = c.data.size,
          .fit = c.data.fit,
          .channels = c.data.channels,
          .skip_bad = c.data.skip_bad,
          .class_order = c.data.class_order};
}

data::ImageSet RunContext::load(const char* split, int64_t limit) const {
  const int64_t holdout = config_.data.holdout;
  data::ImageSet set = data::load_dataset(holdout > 0 ? dataset_spec(config_, "train", 0)
                                                      : dataset_spec(config_, split, limit));
  if (!set.note.empty()) console::info(str(set.name, " ", split, ": ", set.note));
  if (holdout == 0) return set;
  set = data::holdout_part(set, holdout, data::dataset_info(set.name).image_files,
                           split == std::string("test"));
  if (limit > 0 && limit < set.size()) {
    set.images = set.images.slice(0, limit).clone();
    set.labels = set.labels.slice(0, limit).clone();
  }
  return set;
}

const data::ImageSet& RunContext::train() {
  if (!train_) train_ = load("train", config_.data.train_limit);
  return *train_;
}

const data::ImageSet& RunContext::test() {
  if (!test_)
    test_ = config_.data.is_none() ? set_without_images(config_)
                                   : load("test", config_.data.test_limit);
  return *test_;
}

data::ImageSet RunContext::distilled() {
  if (config_.synthesis.batches == 0) return {};  // all are made in the students' rounds
  data::ImageSet pool = ImagePool::open(folder_ + "/synth").load();
  return config_.data.is_none() ? pool_part(pool, config_, false) : pool;
}

const data::ImageSet& RunContext::measured_images() {
  if (!config_.data.is_none()) return test();
  if (!held_out_) {
    held_out_ = pool_part(ImagePool::open(folder_ + "/synth").load(), config_, true);
    held_out_->class_ids = test().class_ids;
  }
  return *held_out_;
}

const data::ImageSet& RunContext::measured() {
  const data::ImageSet& set = measured_images();
  if (held_out_ && !held_out_labelled_) {
    held_out_->labels = argmax(fused_test_logits(), 1);
    held_out_labelled_ = true;
  }
  return set;
}

data::Normalization RunContext::normalization(const TeacherConfig& t, const ModelCard& card) {
  if (config_.data.is_none()) return known_normalization(t, card.normalization);
  data::Normalization n = default_normalization();
  if (!card.normalization.mean.empty()) n = card.normalization;
  if (!t.mean.empty()) n.mean = t.mean;
  if (!t.std.empty()) n.std = t.std;
  return n;
}

Teachers& RunContext::teachers() {
  if (teachers_) return *teachers_;
  auto all = std::make_unique<Teachers>();
  for (const TeacherConfig& t : config_.teachers) {
    const nn::ModelSpec model = spec(t.model);
    ModelCard card;
    std::vector<std::string> notes;
    auto net = load_model(teacher_dir(t) + "/model.safetensors", model, "", &card, &notes);
    align_classes(*net, &card, test(), &notes);
    for (const std::string& note : notes) console::info(str("teacher ", name(t), ": ", note));
    Teacher::Options options{name(t), model, card.normalization, t.weight, card.top1};
    all->add(std::make_unique<Teacher>(options, std::move(net)));
  }
  all->to(compute_.device);
  all->set_precision(compute_.precision);
  teachers_ = std::move(all);
  return *teachers_;
}

json RunContext::teacher_cards() {
  json cards = json::array();
  for (const TeacherConfig& t : config_.teachers) {
    const std::string file = teacher_dir(t) + "/model.safetensors";
    const ModelCard card = read_model_card(file, data::read_safetensors(file).metadata);
    cards.push_back({{"name", name(t)},
                     {"arch", t.model},
                     {"sha256", data::sha256_file(file)},
                     {"mean", card.normalization.mean},
                     {"std", card.normalization.std},
                     {"top1", card.top1}});
  }
  return cards;
}

const std::vector<Tensor>& RunContext::teacher_test_logits() {
  if (teacher_logits_.empty())
    for (size_t m = 0; m < teachers().size(); ++m)
      teacher_logits_.push_back(logits_of(
          on_device(measured_images(), compute_.device),
          [&](const Tensor& x) { return teachers()[m].forward_no_grad(x).logits.data(); }));
  return teacher_logits_;
}

Tensor RunContext::fused_test_logits() {
  if (!fused_.defined()) {
    const std::vector<double> w = teachers().weights();
    for (size_t m = 0; m < w.size(); ++m) {
      const Tensor z = mul(teacher_test_logits()[m], w[m]);
      if (fused_.defined())
        add_(fused_, z);
      else
        fused_ = z;
    }
  }
  return fused_;
}

void RunContext::forget_replaced_weights() const {
  bool replaced = false;
  for (const TeacherConfig& t : config_.teachers) {
    if (t.weights.empty()) continue;
    const json marker = data::read_json(teacher_dir(t) + "/done.json");
    if (!marker.is_object() || marker.value("config_sha256", "") != teacher_sha(t)) continue;
    const std::string then = marker.value("weights_sha256", ""), now = weights_sha256(t.weights);
    if (then.empty() || then == now) continue;  // empty: of an earlier version
    console::warn(str("teacher ", name(t), ": ", t.weights,
                      " is not the file that was imported (sha256 ", then.substr(0, 12),
                      "..., now ", now.substr(0, 12),
                      "...): this teacher, the images and the students are made again"));
    fs::remove_all(teacher_dir(t));
    replaced = true;
  }
  if (!replaced) return;
  for (const char* made : {"/synth", "/bank", "/students", "/metrics/neighbours.safetensors"})
    fs::remove_all(folder_ + made);
}

void RunContext::require_same_configuration() const {
  const auto require = [](const std::string& dir, const std::string& sha) {
    if (!read_marker(dir, sha)) CheckpointStore(dir + "/ckpt", sha).require_same_config();
  };
  for (const TeacherConfig& t : config_.teachers) require(teacher_dir(t), teacher_sha(t));
  require(folder_ + "/synth", synthesis_sha());
  for (const StudentConfig& s : config_.students) require(student_dir(s), student_sha(s));
  const MetricsConfig& m = config_.metrics;
  if (!m.classifier_model.empty() && m.classifier_weights.empty())
    require(folder_ + "/metrics/classifier", classifier_sha());
}

void RunContext::require_teachers() const {
  for (const TeacherConfig& t : config_.teachers)
    if (!read_marker(teacher_dir(t), teacher_sha(t)))
      throw UsageError(
          str("teacher ", name(t), " is not ready in ", folder_, "; run `mtcki train` first"));
}

void RunContext::require_synthesis() const {
  if (config_.synthesis.batches > 0 && !read_marker(folder_ + "/synth", synthesis_sha()))
    throw UsageError(str("no finished synthetic set in ", folder_, "; run `mtcki invert` first"));
}

}  // namespace mtcki
