// The inversion loss with all of its terms, and a synthesis that changes its number of ranks,
// against one process.
#include <map>
#include <memory>

#include "mtcki/synthesis/synthesizer.h"
#include "tests/mpi/mpi_testing.h"

namespace mtcki {
namespace {

using namespace testing;

constexpr int64_t kSize = 16;

std::unique_ptr<Teachers> teachers() {
  auto out = std::make_unique<Teachers>();
  uint64_t seed = 1;
  for (const char* name : {"resnet8", "wrn10_1"}) {
    const nn::ModelSpec spec{name, 3, kSize, 10};
    nn::Init init(seed++);
    auto net = nn::make_classifier(spec, init);
    for (nn::BatchNorm2d* bn : net->batch_norms()) {
      bn->running_mean.copy_(mul(sample(bn->running_mean.shape(), seed, DType::f32), 0.1));
      bn->running_var.copy_(
          add(square(sample(bn->running_var.shape(), seed + 50, DType::f32)), 0.3));
    }
    out->add(std::make_unique<Teacher>(
        Teacher::Options{name, spec, {{0.5, 0.5, 0.5}, {0.3, 0.3, 0.3}}, 1.0, -1}, std::move(net)));
  }
  return out;
}

SynthesisConfig config() {
  SynthesisConfig c;
  c.batches = 2;
  c.batch_size = 4 * world().size();
  c.g_steps = 3;
  c.nz = 8;
  c.ngf = 8;
  c.bank_size = 64;
  c.bank_draw = 10;
  c.head_dim = 8;
  c.pad = 2;
  return c;
}

struct Evaluated {
  std::map<std::string, double> terms;
  Tensor images;  // gradient
  std::vector<Tensor> heads, phi;
};

// A second step, so that the bank has rows and the statistics have a history.
Evaluated evaluate(const SynthesisConfig& c, const Communicator& comm) {
  const CommunicatorScope scope(comm);
  const auto team = teachers();
  InversionLoss loss(*team, c, 64, 3);
  StepInputs inputs;
  Student student("s", {"resnet8", 3, kSize, 10}, {{0.5, 0.5, 0.5}, {0.3, 0.3, 0.3}}, 9);
  const RowRange r = rows_of_rank(c.batch_size, comm, "batch");
  Evaluated out;
  for (uint64_t step = 0; step < 2; ++step) {
    const Tensor x = rand({c.batch_size, 3, kSize, kSize}, Rng{4, 4, step});
    const Variable images(x.slice(r.begin, r.end).clone(), true);
    InversionLoss::Step s;
    s.labels = randint(0, 10, {c.batch_size}, Rng{5, 5, step}).slice(r.begin, r.end);
    s.views = draw_views(c.batch_size, kSize, kSize, c.pad, c.flip, c.min_crop, Rng{6, 6, step});
    for (Tensor* t : {&s.views.offset, &s.views.flip, &s.views.box, &s.views.local_flip})
      *t = t->slice(r.begin, r.end);
    s.asked = {0, 1};
    s.student = &student;
    loss.draw(s, Rng{7, 7, step}, inputs);
    loss.zero_grad();
    MetricRing ring;
    InversionLoss::Result result = loss.evaluate(images, s, ring);
    result.total.backward();
    ring.commit(0);
    const Values terms = ring.read();
    out.terms = {terms.begin(), terms.end()};
    out.terms["total"] = result.total.item();
    out.images = images.grad();
    out.heads.clear();
    for (size_t h = 0; h < loss.contrast()->heads(); ++h)
      for (const Variable& p : loss.contrast()->head(h).parameters()) out.heads.push_back(p.grad());
    loss.finish_batch(images.data(), s.views);
    out.phi = loss.contrast()->latest().local;
  }
  return out;
}

TEST(ParallelInversion, EveryTermEqualsOneProcess) {
  for (const CrMode mode : {CrMode::cat, CrMode::each, CrMode::first}) {
    SCOPED_TRACE(static_cast<int>(mode));
    SynthesisConfig c = config();
    c.cr_mode = mode;
    c.adv_mode = mode == CrMode::cat ? AdvMode::js : AdvMode::kl_agree;
    c.cls_mode = mode == CrMode::cat ? ClsMode::ens : ClsMode::each;
    c.bn_mmt = 0.5;
    c.loss["consensus"] = 0.3;
    c.loss["tv"] = 0.2;
    c.loss["l2"] = 0.1;
    c.loss["activation"] = 0.2;
    c.loss["balance"] = 0.4;
    c.loss["cls"] = 0.7;
    c.loss["adv"] = 0.6;
    const Evaluated want = evaluate(c, Communicator::self());
    const Evaluated got = evaluate(c, world());
    ASSERT_EQ(got.terms.size(), want.terms.size());
    EXPECT_EQ(want.terms.size(), 11u);  // nine terms, a chance and the total
    for (const auto& [name, value] : want.terms)
      EXPECT_NEAR(got.terms.at(name), value, 2e-5 * std::max(1e-2, std::fabs(value))) << name;
    EXPECT_TRUE(close(got.images, own_rows(want.images.plain()), 1e-4));
    ASSERT_EQ(got.heads.size(), want.heads.size());
    for (size_t i = 0; i < want.heads.size(); ++i) {
      EXPECT_TRUE(close(got.heads[i], want.heads[i], 1e-4)) << i;
      EXPECT_TRUE(same_on_all_ranks(got.heads[i])) << i;
    }
    for (size_t h = 0; h < want.phi.size(); ++h)
      EXPECT_TRUE(close(got.phi[h], want.phi[h], 1e-5)) << h;
  }
}

struct Synthesis {
  explicit Synthesis(const Communicator& comm) : scope(comm), team(teachers()) {
    Synthesizer::Options o;
    o.image_size = kSize;
    o.most_batches = 2;
    o.seed = 3;
    synthesizer = std::make_unique<Synthesizer>(*team, config(), o);
  }
  void steps(int n) {
    for (int i = 0; i < n; ++i) synthesizer->step();
  }
  CommunicatorScope scope;
  std::unique_ptr<Teachers> team;
  std::unique_ptr<Synthesizer> synthesizer;
};

// Saved inside a batch by all ranks, continued by each as one process, and the other way round.
TEST(ParallelInversion, ABatchContinuesWithAnotherNumberOfRanks) {
  struct Finished {
    Synthesizer::Batch batch;
    std::vector<Tensor> phi;
  };
  Finished want;
  {
    Synthesis one(Communicator::self());
    one.steps(3);
    want.batch = one.synthesizer->finish();
    want.phi = one.synthesizer->contrast()->latest().local;
  }
  const auto mixed = [](const Communicator& first, const Communicator& then) {
    StageState state;
    {
      Synthesis s(first);
      s.steps(2);
      save(*s.synthesizer, state);
    }
    Synthesis s(then);
    load(*s.synthesizer, state);
    s.steps(1);
    Finished out{s.synthesizer->finish(), s.synthesizer->contrast()->latest().local};
    return out;
  };
  for (const Finished& got : {mixed(world(), Communicator::self()),
                              mixed(Communicator::self(), world()), mixed(world(), world())}) {
    EXPECT_TRUE(identical(got.batch.labels, want.batch.labels));
    EXPECT_NEAR(got.batch.select, want.batch.select, 1e-3 * std::fabs(want.batch.select));
    EXPECT_TRUE(close(got.batch.images, want.batch.images, 0.02));  // bytes: a rounding step or two
    ASSERT_EQ(got.phi.size(), want.phi.size());
    for (size_t h = 0; h < want.phi.size(); ++h)
      EXPECT_TRUE(close(got.phi[h], want.phi[h], 1e-2)) << h;
  }
}

}  // namespace
}  // namespace mtcki
