// The loader: same batches for any number of threads, resume at any batch, augmentation.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/loader.h"
#include "data/sets/synth10.h"
#include "tensor/ops/elementwise.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

ImageSet small_set(int64_t n = 53, int64_t channels = 3) {
  ImageSet set = make_synth10("train", n, 1, channels);
  set.normalization = dataset_info(channels == 3 ? "cifar10" : "mnist").normalization;
  return set;
}

LoaderOptions options(const ImageSet& set, int threads) {
  LoaderOptions o;
  o.batch_size = 8;
  o.pad = 4;
  o.flip = true;
  o.threads = threads;
  o.seed = 7;
  o.normalization = set.normalization;
  return o;
}

std::vector<float> all_values(Loader* loader, std::vector<int64_t>* rows = nullptr) {
  std::vector<float> out;
  for (Batch b = loader->next(); b.defined(); b = loader->next()) {
    const std::vector<float> v = b.images.to_vector<float>();
    out.insert(out.end(), v.begin(), v.end());
    for (const int64_t label : b.labels.to_vector<int64_t>())
      out.push_back(static_cast<float>(label));
    if (rows) {
      const std::vector<int64_t> index = b.index.to_vector<int64_t>();
      rows->insert(rows->end(), index.begin(), index.end());
    }
  }
  return out;
}

TEST(Loader, SameBatchesForAnyNumberOfThreads) {
  const ImageSet set = small_set();
  std::vector<float> want;
  for (const int threads : {0, 1, 2, 5}) {
    Loader loader(set, options(set, threads));
    std::vector<float> got;
    for (const int64_t epoch : {0, 3}) {
      loader.start_epoch(epoch);
      const std::vector<float> v = all_values(&loader);
      got.insert(got.end(), v.begin(), v.end());
    }
    if (threads == 0) {
      want = got;
      EXPECT_EQ(want.size(), 2u * 6 * 8 * (3 * 32 * 32 + 1));
    }
    EXPECT_EQ(got, want) << threads << " threads";
  }
}

TEST(Loader, ResumesAtAnyBatch) {
  const ImageSet set = small_set();
  Loader whole(set, options(set, 2));
  whole.start_epoch(4);
  std::vector<std::vector<float>> batches;
  for (Batch b = whole.next(); b.defined(); b = whole.next())
    batches.push_back(b.images.to_vector<float>());
  ASSERT_EQ(batches.size(), 6u);
  Loader resumed(set, options(set, 2));
  for (int64_t first = 0; first <= 6; ++first) {
    resumed.start_epoch(4, first);  // also in the middle of a running epoch
    if (first == 6) {
      EXPECT_FALSE(resumed.next().defined());
      break;
    }
    EXPECT_EQ(resumed.next().images.to_vector<float>(), batches[static_cast<size_t>(first)])
        << first;
  }
  EXPECT_THROW(resumed.start_epoch(4, 7), UsageError);
  EXPECT_THROW(resumed.start_epoch(4, -1), UsageError);
}

TEST(Loader, EveryRowOnceAndEpochsDiffer) {
  const ImageSet set = small_set();
  LoaderOptions o = options(set, 1);
  o.drop_last = false;
  Loader loader(set, o);
  EXPECT_EQ(loader.batches_per_epoch(), 7);
  std::vector<int64_t> first, second;
  loader.start_epoch(0);
  all_values(&loader, &first);
  loader.start_epoch(1);
  all_values(&loader, &second);
  EXPECT_EQ(first.size(), 53u);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 53u);
  EXPECT_NE(first, second);
  o.drop_last = true;
  EXPECT_EQ(Loader(set, o).batches_per_epoch(), 6);
  o.shuffle = false;
  o.drop_last = false;
  Loader ordered(set, o);
  std::vector<int64_t> rows;
  ordered.start_epoch(9);
  all_values(&ordered, &rows);
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
}

TEST(Loader, NormalisesAsToTensorAndNormalizeDo) {
  const ImageSet set = small_set(4);
  LoaderOptions o;
  o.batch_size = 4;
  o.shuffle = false;
  o.normalization = set.normalization;
  Loader loader(set, o);
  loader.start_epoch(0);
  const Batch b = loader.next();
  const uint8_t* bytes = set.images.data<uint8_t>();
  for (int64_t i = 0; i < b.images.numel(); ++i) {
    const auto c = static_cast<size_t>(i / 1024 % 3);
    const float want =
        (static_cast<float>(bytes[i]) / 255.0f - static_cast<float>(o.normalization.mean[c])) /
        static_cast<float>(o.normalization.std[c]);
    ASSERT_EQ(b.images.data<float>()[i], want) << i;
  }
  o.normalization = {};
  Loader plain(set, o);
  plain.start_epoch(0);
  EXPECT_EQ(plain.next().images.data<float>()[5], static_cast<float>(bytes[5]) / 255.0f);
}

TEST(Loader, ViewsReturnInTurnAndNameTheirRow) {
  const ImageSet set = small_set();
  LoaderOptions o = options(set, 1);
  o.drop_last = false;
  constexpr int64_t kViews = 3;
  const auto images_by_row = [&](int64_t views, int64_t epoch) {
    o.views = views;
    Loader loader(set, o);
    loader.start_epoch(epoch);
    std::map<int64_t, std::vector<float>> out;
    for (Batch b = loader.next(); b.defined(); b = loader.next()) {
      EXPECT_EQ(b.view_row.defined(), views > 0);
      for (int64_t i = 0; i < b.images.size(0); ++i) {
        const int64_t row = b.index.data<int64_t>()[i];
        out[row] = b.images.slice(i, i + 1).to_vector<float>();
        if (views > 0) {
          EXPECT_EQ(b.view_row.data<int64_t>()[i], epoch % views * set.size() + row);
        }
      }
    }
    return out;
  };
  for (int64_t epoch = 0; epoch < kViews; ++epoch) {
    const auto first = images_by_row(kViews, epoch);
    EXPECT_EQ(first, images_by_row(0, epoch)) << "the first turn is that of fresh views";
    EXPECT_EQ(first, images_by_row(kViews, epoch + kViews));
    EXPECT_EQ(first, images_by_row(kViews, epoch + 4 * kViews));
    EXPECT_NE(first, images_by_row(kViews, epoch + 1));
    EXPECT_NE(first, images_by_row(0, epoch + kViews));
  }
}

// Each augmented image must be one of the crops, mirrored or not, of the padded image; and all must
// occur.
TEST(Loader, AugmentationIsPadCropAndMirror) {
  ImageSet set = small_set(1);
  LoaderOptions o;
  o.batch_size = 1;
  o.pad = 1;
  o.flip = true;
  Loader loader(set, o);
  const uint8_t* in = set.images.data<uint8_t>();
  std::set<int> seen;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    loader.start_epoch(epoch);
    const std::vector<float> got = loader.next().images.to_vector<float>();
    int match = -1;
    for (int kind = 0; kind < 18 && match < 0; ++kind) {
      const int64_t dy = kind / 3 % 3 - 1, dx = kind % 3 - 1;
      bool same = true;
      for (int64_t i = 0; i < 3 * 1024 && same; ++i) {
        const int64_t c = i / 1024, y = i / 32 % 32 + dy;
        const int64_t column = kind >= 9 ? 31 - i % 32 : i % 32, x = column + dx;
        const bool inside = y >= 0 && y < 32 && x >= 0 && x < 32;
        const int v = inside ? in[c * 1024 + y * 32 + x] : 0;
        same = got[static_cast<size_t>(i)] == static_cast<float>(v) / 255.0f;
      }
      if (same) match = kind;
    }
    ASSERT_GE(match, 0) << "epoch " << epoch;
    seen.insert(match);
  }
  EXPECT_EQ(seen.size(), 18u);
}

// y + share (x - y) of the image x and the second y that the plan names, both as the loader shows
// them without a mix.
TEST(Loader, AMixIsTheSumThatThePlanSays) {
  constexpr int64_t kImages = 400;
  const ImageSet set = small_set(kImages, 1);
  const int64_t pixels = set.images.numel() / kImages;
  LoaderOptions o = options(set, 0);
  o.batch_size = kImages;
  o.shuffle = false;
  Loader plain(set, o);
  plain.start_epoch(3);
  const Batch images = plain.next();
  const float* pure = images.images.data<float>();
  for (const Mix mix : {Mix::mixup, Mix::cutmix}) {
    o.mix = mix;
    Loader loader(set, o);
    loader.start_epoch(3);
    const Batch batch = loader.next();
    BatchPlanner planner(set, o);
    planner.start_epoch(3);
    const BatchPlan plan = planner.at(0);
    EXPECT_TRUE(identical(batch.labels, images.labels));
    EXPECT_TRUE(identical(batch.index, images.index));
    const int64_t shares = plan.share.numel() / kImages;
    ASSERT_EQ(shares, mix == Mix::mixup ? 1 : pixels);
    std::set<int64_t> seconds;
    double sum = 0, least = 1;
    for (int64_t i = 0; i < kImages; ++i) {
      const int64_t j = plan.second.index.data<int64_t>()[i];
      seconds.insert(j);
      double own = 0;
      for (int64_t p = 0; p < pixels; ++p) {
        const float share = plan.share.data<float>()[i * shares + p % shares];
        if (mix == Mix::cutmix) {
          ASSERT_TRUE(share == 0 || share == 1);
        }
        own += share / static_cast<double>(pixels);
        const float x = pure[i * pixels + p], y = pure[j * pixels + p];
        ASSERT_NEAR(batch.images.data<float>()[i * pixels + p], share * x + (1 - share) * y, 1e-5)
            << shares << " shares, image " << i << ", pixel " << p << ", share " << share << ": "
            << x << ", " << y;
      }
      sum += own / kImages;
      least = std::min(least, own);
    }
    // The second's share u is uniform in [0, 1/2]. Of a box of side s = √u about a uniform centre,
    // s − s²/4 of each side lie inside, in the mean; E (s − s²/4)² = 0.1845.
    EXPECT_NEAR(sum, mix == Mix::mixup ? 0.75 : 0.8155, 0.02);
    EXPECT_GE(least, mix == Mix::mixup ? 0.5 : 0.47);  // sides are whole pixels
    EXPECT_GT(seconds.size(), kImages / 2u);           // 1 - 1/e of them by chance
  }
}

TEST(Loader, AugmentationDoesNotDependOnTheBatchSize) {
  const ImageSet set = small_set(12);
  std::vector<std::vector<float>> by_row(12);
  for (const int64_t batch : {1, 4, 12}) {
    LoaderOptions o = options(set, 1);
    o.mix = Mix::cutmix;
    o.batch_size = batch;
    Loader loader(set, o);
    loader.start_epoch(2);
    for (Batch b = loader.next(); b.defined(); b = loader.next()) {
      const std::vector<float> v = b.images.to_vector<float>();
      for (int64_t i = 0; i < batch; ++i) {
        const std::vector<float> image(v.begin() + i * 3072, v.begin() + (i + 1) * 3072);
        auto& known = by_row[static_cast<size_t>(b.index.data<int64_t>()[i])];
        if (known.empty()) known = image;
        EXPECT_EQ(known, image);
      }
    }
  }
}

TEST(Loader, RestartAndDestructionWhileBusy) {
  const ImageSet set = small_set(400);
  const LoaderOptions o = options(set, 3);
  for (int i = 0; i < 20; ++i) {
    Loader loader(set, o);
    loader.start_epoch(i);
    if (i % 2) loader.next();
    loader.start_epoch(i + 1);
  }
}

TEST(Loader, GreyAndOneBatchSmallerThanTheSet) {
  const ImageSet set = small_set(5, 1);
  LoaderOptions o = options(set, 1);
  o.batch_size = 8;
  EXPECT_EQ(Loader(set, o).batches_per_epoch(), 0);
  o.drop_last = false;
  Loader loader(set, o);
  loader.start_epoch(0);
  EXPECT_EQ(loader.next().images.shape(), (Shape{5, 1, 28, 28}));
  EXPECT_FALSE(loader.next().defined());
}

TEST(Loader, RangeForIsTheSameAsNext) {
  const ImageSet set = small_set();
  for (const int threads : {0, 2}) {
    Loader loader(set, options(set, threads));
    loader.start_epoch(3, 1);
    const std::vector<float> want = all_values(&loader);
    std::vector<float> got;
    for (const Batch& batch : loader.epoch(3, 1)) {
      const std::vector<float> images = batch.images.to_vector<float>();
      const std::vector<float> labels = batch.labels.to_vector<float>();
      got.insert(got.end(), images.begin(), images.end());
      got.insert(got.end(), labels.begin(), labels.end());
    }
    EXPECT_EQ(got, want);
  }
}

TEST(Loader, NextBeforeTheFirstEpochIsAnError) {
  const ImageSet set = small_set();
  for (const int threads : {0, 2})
    EXPECT_THROW(Loader(set, options(set, threads)).next(), UsageError);
}

TEST(Loader, Refusals) {
  const ImageSet set = small_set(5);
  const auto refuses = [&](auto change) {
    LoaderOptions o = options(set, 0);
    ImageSet s = set;
    change(&o, &s);
    EXPECT_THROW(Loader(s, o), UsageError);
  };
  refuses([](LoaderOptions* o, ImageSet*) { o->batch_size = 0; });
  refuses([](LoaderOptions* o, ImageSet*) { o->pad = -1; });
  refuses([](LoaderOptions* o, ImageSet*) { o->threads = -1; });
  refuses([](LoaderOptions* o, ImageSet*) { o->views = -1; });
  refuses([](LoaderOptions* o, ImageSet*) { o->normalization.mean.pop_back(); });
  refuses([](LoaderOptions* o, ImageSet*) { o->normalization = {{0.5}, {0.5}}; });
  refuses([](LoaderOptions* o, ImageSet*) { o->normalization.std[1] = 0; });
  refuses([](LoaderOptions*, ImageSet* s) { s->images = Tensor(); });
  refuses([](LoaderOptions*, ImageSet* s) { s->images = s->images.to(DType::f32); });
  refuses([](LoaderOptions*, ImageSet* s) { s->labels = s->labels.slice(0, 2); });
}

}  // namespace
}  // namespace mtcki::data
