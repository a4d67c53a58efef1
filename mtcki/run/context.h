// What the stages of one run share: data, loaded once and only when needed; teachers; folder names;
// hashes; markers of finished stages.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/job.h"

namespace mtcki {

// DIR/done.json, written when a stage is complete, with its own checksum and those of `files`, the
// stage's files that are read again (relative to DIR); collective.
// Reading: nothing when the stage is not done; UsageError when it was done under another
// configuration, DataError when a checksum does not fit.
void write_marker(const std::string& dir, const std::string& sha, nlohmann::json content,
                  const std::vector<std::string>& files);
std::optional<nlohmann::json> read_marker(const std::string& dir, const std::string& sha);

// What [data] asks for.
data::DatasetSpec dataset_spec(const RunConfig& config, const std::string& split, int64_t limit);

class RunContext {
 public:
  RunContext(const RunConfig& config, std::string folder);

  const RunConfig& config() const { return config_; }
  const std::string& folder() const { return folder_; }
  const Compute& compute() const { return compute_; }

  static std::string name(const TeacherConfig& t) { return t.name.empty() ? t.model : t.name; }
  static std::string name(const StudentConfig& s) { return s.name.empty() ? s.model : s.name; }
  std::string teacher_dir(const TeacherConfig& t) const { return folder_ + "/teachers/" + name(t); }
  std::string student_dir(const StudentConfig& s) const { return folder_ + "/students/" + name(s); }
  // What a stage of this run is given; stage: its name in the log.
  StageJob job(const std::string& stage, const std::string& dir, const std::string& sha) const;
  // Of everything the stage's result depends on.
  std::string teacher_sha(const TeacherConfig& t) const;
  std::string synthesis_sha() const;
  std::string student_sha(const StudentConfig& s) const;
  std::string classifier_sha() const;

  const data::ImageSet& train();
  // With data.name "none" they say their shape and classes, but there are no images.
  const data::ImageSet& test();
  // What students are measured on: the real test images, or synthetic ones that distillation does
  // not see, with the fused teachers' class as their label; and what they learn from. After the
  // synthesis.
  const data::ImageSet& measured();
  data::ImageSet distilled();
  int64_t channels() { return test().images.size(1); }
  int64_t image_size() { return test().images.size(2); }
  int64_t num_classes() { return test().num_classes(); }
  const std::vector<std::string>& class_names() { return test().class_names; }
  nn::ModelSpec spec(const std::string& model) {
    return {model, channels(), image_size(), num_classes()};
  }

  const data::Normalization& default_normalization() { return test().normalization; }
  // Its own from the configuration, else the file's, else the data set's.
  data::Normalization normalization(const TeacherConfig& t, const ModelCard& card);

  // From teachers/NAME/model.safetensors, on the run's device.
  Teachers& teachers();
  nlohmann::json teacher_cards();
  // On the images of measured(), computed once: f32 [N,K] per teacher, and their weighted sum.
  const std::vector<Tensor>& teacher_test_logits();
  Tensor fused_test_logits();

  // Where a teacher's weight file has another content than the one that was imported: says so and
  // removes what came of it (that teacher, the images, the students), so that it is made again.
  void forget_replaced_weights() const;
  // UsageError when a stage in the folder was begun or finished under another configuration.
  void require_same_configuration() const;
  // UsageError naming the command that makes what is missing.
  void require_teachers() const;
  void require_synthesis() const;

 private:
  data::ImageSet load(const char* split, int64_t limit) const;
  const data::ImageSet& measured_images();  // labels of held-out ones are not there yet

  RunConfig config_;
  Compute compute_;
  std::string folder_;
  std::optional<data::ImageSet> train_, test_, held_out_;
  bool held_out_labelled_ = false;
  std::unique_ptr<Teachers> teachers_;
  std::vector<Tensor> teacher_logits_;
  Tensor fused_;
};

}  // namespace mtcki
