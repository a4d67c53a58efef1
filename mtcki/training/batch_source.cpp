#include "mtcki/training/batch_source.h"

#include <algorithm>

#include "tensor/comm.h"
#include "tensor/error.h"
#include "tensor/ops/augment.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

struct BatchSource::OnDevice {
  OnDevice(const data::ImageSet& set, const data::LoaderOptions& o, Device device)
      : planner(set, o), images(set.images.to(device)), pad(o.pad), inputs(device) {
    if (o.normalization.mean.empty()) return;
    mean = o.normalization.mean_tensor().to(device);
    std = o.normalization.std_tensor().to(device);
  }
  // A pick on the device, and its images there.
  data::Pick put(const char* whose, const data::Pick& pick) {
    return {inputs.set(str(whose, "index"), pick.index),
            inputs.set(str(whose, "offset"), pick.offset),
            inputs.set(str(whose, "flip"), pick.flip)};
  }
  Tensor gather(const data::Pick& pick) const {
    return gather_augment(images, pick.index, pad, pick.offset, pick.flip, mean, std, DType::f32,
                          preferred_layout(images.device(), DType::f32, images.size(1)));
  }

  data::BatchPlanner planner;
  Tensor images, mean, std;
  int64_t pad;
  StepInputs inputs;
  data::BatchPlan plan;  // of the prepared batch, on the device
};

namespace {

data::LoaderOptions fitted(const data::ImageSet& set, data::LoaderOptions options) {
  if (set.size() == 0) throw DataError(str("data set ", set.name, " is empty"));
  if (set.size() < options.batch_size) options.drop_last = false;
  options.rank = communicator().rank();
  options.ranks = communicator().size();
  return options;
}

}  // namespace

BatchSource::BatchSource(const data::ImageSet& set, data::LoaderOptions options, Device device) {
  options = fitted(set, std::move(options));
  if (device.is_cuda()) {
    there_ = std::make_shared<OnDevice>(set, options, device);
    per_pass_ = there_->planner.batches_per_epoch();
  } else {
    loader_ = std::make_unique<data::Loader>(set, options);
    per_pass_ = loader_->batches_per_epoch();
  }
  per_pass_ = std::max<int64_t>(1, per_pass_);
}

void BatchSource::prepare(int64_t step) {
  const bool jump = step != next_ || step % per_pass_ == 0;
  const int64_t pass = step / per_pass_, number = step % per_pass_;
  next_ = step + 1;
  if (there_) {
    OnDevice& d = *there_;
    if (jump) d.planner.start_epoch(pass);
    const data::BatchPlan plan = d.planner.at(number);
    d.plan = {d.put("", plan.own), d.inputs.set("labels", plan.labels),
              d.inputs.set("view_row", plan.view_row), d.put("second ", plan.second),
              d.inputs.set("share", plan.share)};
    rows_ = plan.labels.size(0);
    return;
  }
  if (jump) loader_->start_epoch(pass, number);
  loaded_ = loader_->next();
  if (!loaded_.defined()) throw Error(str("loader ended before step ", step));
  rows_ = loaded_.images.size(0);
}

data::Batch BatchSource::batch() {
  if (!there_) return std::move(loaded_);
  const OnDevice& d = *there_;
  Tensor x = d.gather(d.plan.own);
  if (d.plan.share.defined()) {
    const Tensor y = d.gather(d.plan.second);
    x = add(y, mul(d.plan.share, sub(x, y)));
  }
  return {x, d.plan.labels, d.plan.own.index, d.plan.view_row};
}

}  // namespace mtcki
