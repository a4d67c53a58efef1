// Configuration: reading, overriding, refusing, printing, hashing, and that every key is read by
// code.
#include "mtcki/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "mtcki/config/keys.h"
#include "mtcki/config/loss_rows.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_config_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name) << text;
    return (dir_ / name).string();
  }
  // The message of the UsageError that loading throws.
  static std::string refusal(const std::vector<std::string>& files,
                             const std::vector<std::string>& overrides = {}) {
    try {
      load_config(files, overrides);
    } catch (const UsageError& e) {
      EXPECT_EQ(e.exit_code(), 2);
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      return e.what();
    }
    return "(accepted)";
  }
  fs::path dir_;
};

const char kGood[] = R"(
name = "t"
seed = 7
[data]
name = "synth10"
[train]
epochs = 3
milestones = [1, 2]
schedule = "multistep"
[[teachers]]
model = "wrn16_1"
weight = 2
[[teachers]]
model = "wrn16_1"
mean = [0.1, 0.2, 0.3]
std = [1, 0.5, 0.25]
[[students]]
model = "resnet8"
)";

TEST_F(ConfigTest, ReadsFilesInOrderThenOverrides) {
  const std::string a = file("a.toml", kGood);
  const std::string b = file("b.toml", "seed = 9\n[synthesis]\ng_steps = 11\n");
  const RunConfig c =
      load_config({a, b}, {"synthesis.cr=0.25", "synthesis.g_steps=12", "teachers.2.model=vgg8"});
  EXPECT_EQ(c.seed, 9u);
  EXPECT_EQ(c.synthesis.g_steps, 12);
  EXPECT_DOUBLE_EQ(c.synthesis.loss.at("cr"), 0.25);
  EXPECT_EQ(c.train.milestones, (std::vector<int64_t>{1, 2}));
  ASSERT_EQ(c.teachers.size(), 3u);
  EXPECT_EQ(c.teachers[0].name, "wrn16_1");
  EXPECT_EQ(c.teachers[1].name, "wrn16_1-2") << "default names are made unique";
  EXPECT_EQ(c.teachers[1].std, (std::vector<double>{1, 0.5, 0.25}));
  EXPECT_DOUBLE_EQ(c.teachers[0].weight, 2.0) << "an integer is a number";
  EXPECT_EQ(c.teachers[2].model, "vgg8");
}

TEST_F(ConfigTest, OverridesTakeTextBare) {
  const RunConfig c = load_config({file("a.toml", kGood)},
                                  {"name=007", "data.dir=/a b/c=d", "teachers.0.weights=\"q.pth\"",
                                   "students=[{model=\"vgg8\"},{model=\"vgg11\"}]"});
  EXPECT_EQ(c.name, "007");
  EXPECT_EQ(c.data.dir, "/a b/c=d");
  EXPECT_EQ(c.teachers[0].weights, "q.pth");
  ASSERT_EQ(c.students.size(), 2u);
  EXPECT_EQ(c.students[1].name, "vgg11");
}

TEST_F(ConfigTest, NamesFileLineAndNearestKey) {
  const std::string f = file("a.toml", std::string(kGood) + "[synthesis]\ng_step = 3\n");
  EXPECT_EQ(refusal({f}),
            f + ":20: unknown key \"synthesis.g_step\"; did you mean \"synthesis.g_steps\"?");
  EXPECT_THAT(refusal({file("b.toml", "[trian]\nlr = 1\n")}),
              HasSubstr("b.toml:1: unknown key \"trian\"; did you mean \"train\"?"));
  EXPECT_THAT(refusal({}, {"g_steps=3"}), HasSubstr("did you mean \"synthesis.g_steps\"?"));
  EXPECT_THAT(refusal({}, {"teacher.0.model=x"}), HasSubstr("did you mean \"teachers.model\"?"));
  EXPECT_THAT(refusal({}, {"data.folder=x"}), HasSubstr("\"data.folder\"; [data] has name, dir, "));
}

TEST_F(ConfigTest, RefusesEveryKeyWithTypo) {
  RunConfig sample;
  sample.teachers.resize(1);
  sample.students.resize(1);
  for (const auto& f : config_keys::fields(sample)) {
    const std::string text = refusal({}, {f.path + "x=1"});
    EXPECT_THAT(text, HasSubstr("unknown key")) << f.path;
    EXPECT_THAT(text, HasSubstr("did you mean")) << f.path;
  }
}

TEST_F(ConfigTest, RefusesWrongTypesAndRangesOfEveryKey) {
  RunConfig sample;
  sample.teachers.resize(1);
  sample.students.resize(1);
  for (const auto& f : config_keys::fields(sample)) {
    EXPECT_FALSE(f.help.empty()) << f.path;
    if (f.type() != "text") {
      EXPECT_THAT(refusal({}, {f.path + "=\"abc\""}), HasSubstr("expects " + f.type())) << f.path;
    }
    if (!f.choices.empty()) {
      EXPECT_THAT(refusal({}, {f.path + "=qqqqqq"}), HasSubstr("is none of")) << f.path;
    }
    const bool list = f.type().find("list") != std::string::npos;
    if (f.type().find("integer") != std::string::npos) {
      EXPECT_THAT(refusal({}, {f.path + (list ? "=[-1]" : "=-1")}), HasSubstr("out of range"))
          << f.path;
      EXPECT_THAT(refusal({}, {f.path + (list ? "=[1.5]" : "=1.5")}), HasSubstr("expects"))
          << f.path;
    } else if (f.type().find("number") != std::string::npos) {
      EXPECT_THAT(refusal({}, {f.path + (list ? "=[nan]" : "=nan")}), HasSubstr("out of range"))
          << f.path;
    }
  }
}

TEST_F(ConfigTest, RefusesBrokenFiles) {
  EXPECT_THAT(refusal({(dir_ / "none.toml").string()}), HasSubstr("no such file"));
  EXPECT_THAT(refusal({dir_.string()}), HasSubstr("not a file"));
  EXPECT_THAT(refusal({file("a.toml", "seed = 1\nseed = 2\n")}), HasSubstr("a.toml:2:"));
  EXPECT_THAT(refusal({file("b.toml", "[train\n")}), HasSubstr("b.toml:1:"));
  EXPECT_THAT(refusal({file("c.toml", "teachers = 3\n")}), HasSubstr("written as [[teachers]]"));
  EXPECT_THAT(refusal({file("d.toml", "train = 3\n")}), HasSubstr("written as [train]"));
  EXPECT_THAT(refusal({file("e.toml", "seed = 1979-05-27\n")}), HasSubstr("found a date"));
  EXPECT_THAT(refusal({file("f.toml", "name = \"a\\u0000b\"\n")}), HasSubstr("zero byte"));
  EXPECT_THAT(refusal({file("g.toml", "seed = 99999999999999999999\n")}), HasSubstr("g.toml:1:"));
}

TEST_F(ConfigTest, RefusesBadOverrides) {
  EXPECT_THAT(refusal({}, {"seed"}), HasSubstr("not key=value"));
  EXPECT_THAT(refusal({}, {"=3"}), HasSubstr("not key=value"));
  EXPECT_THAT(refusal({}, {"teachers.1.model=x"}), HasSubstr("the next one is teachers.0"));
  EXPECT_THAT(refusal({}, {"teachers.model=x"}), HasSubstr("write teachers.0.model"));
  EXPECT_THAT(refusal({}, {"teachers.99999999999999999999.model=x"}), HasSubstr("is a list"));
  EXPECT_THAT(refusal({}, {"train.lr=1\nseed=2"}), HasSubstr("one value"));
}

TEST_F(ConfigTest, RefusesImpossibleCombinations) {
  const std::string good = file("a.toml", kGood);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"teachers.0.name=a/b", "becomes a folder"},
      {"teachers=[{name=\"x\",model=\"vgg8\"},{name=\"x\",model=\"vgg8\"}]", "two are named"},
      {"teachers.0.mean=[0.5]", "give both"},
      {"teachers.0.name_map=datafree", "name_map or weights_key without weights"},
      {"train.schedule=cosine", "train.milestones"},
      {"train.milestones=[]", "needs train.milestones"},
      {"train.milestones=[2,1]", "must increase"},
      {"train.warmup_epochs=3", "less than train.epochs"},
      {"train.momentum=0", "train.nesterov"},
      {"train.min_lr=1", "above train.lr"},
      {"distill.min_lr=1", "above distill.lr"},
      {"distill.milestones=[1]", "only distill.schedule=multistep reads them"},
      {"distill.schedule=multistep", "multistep needs distill.milestones"},
      {"synthesis.bank_size=8", "bank_draw"},
      {"synthesis.teachers_per_step=3", "3 of 2 teachers"},
      {"synthesis.teachers_per_step=1", "set synthesis.cr_mode to \"each\" or \"first\""},
      {"synthesis.adv=0.5", "synthesis.adv: there is no student while the set is made; set rounds"},
      {"rounds.per_epoch=2", "distill.steps_per_epoch: rounds.per_epoch shares it out"},
      {"synthesis.batches=0", "synthesis.batches: with 0 no images are made before"},
      {"distill.replay=fresh", "fresh images need rounds.per_epoch"},
      {"synthesis.reset_first=2", "only synthesis.source = \"meta_generator\" reads it"},
      {"synthesis.g_life_first=2", "(accepted)"},
      {"synthesis.best=first", "\"first\" is none of select | total | last"},
      {"synthesis.best=2", "\"2\" is none of"},
      {"metrics.classifier_weights=x", "classifier_model is missing"},
      {"teachers.0.weight=1e308", ""},
      {"out=", "must not be empty"},
      {"teachers.2.weight=1", "model is missing"},
      {"teachers=[]", "none given"},
  };
  for (const auto& [override_text, message] : cases) {
    if (message.empty()) {
      EXPECT_EQ(refusal({good}, {override_text}), "(accepted)") << override_text;
    } else {
      EXPECT_THAT(refusal({good}, {override_text}), HasSubstr(message)) << override_text;
    }
  }
  const std::vector<std::string> rounds = {"rounds.per_epoch=2", "distill.steps_per_epoch=4"};
  const auto with_rounds = [&](std::vector<std::string> more) {
    more.insert(more.end(), rounds.begin(), rounds.end());
    return refusal({good}, more);
  };
  EXPECT_EQ(with_rounds({"synthesis.adv=0.5"}), "(accepted)");
  EXPECT_EQ(with_rounds({"synthesis.adv=0.5", "synthesis.batches=0"}), "(accepted)");
  EXPECT_THAT(
      with_rounds({"synthesis.adv=1", "synthesis.bn=0", "synthesis.cls=0", "synthesis.cr=0"}),
      HasSubstr("synthesis.batches: every loss needs a student"));
  EXPECT_THAT(refusal({good}, {"rounds.per_epoch=2", "distill.steps_per_epoch=5"}),
              HasSubstr("must be a multiple of that"));
  EXPECT_THAT(with_rounds({"distill.replay=fresh"}),
              HasSubstr("no fresh images can be drawn from synthesis.source"));
  EXPECT_THAT(
      with_rounds({"distill.replay=fresh", "synthesis.source=sampler", "distill.fuse=conf"}),
      HasSubstr("distill.fuse: conf needs labels, and fresh images have none"));
  EXPECT_THAT(
      refusal({good}, {"synthesis.g_life_first=2", "synthesis.source=pixels"}),
      HasSubstr("g_life_first: synthesis.source = \"pixels\" has no generator that begins"));
  EXPECT_THAT(
      with_rounds({"synthesis.adv=1", "synthesis.adv_mode=js", "synthesis.adv_temperature=3"}),
      HasSubstr("synthesis.adv_temperature: adv_mode js and adi have a temperature of their own"));
  EXPECT_THAT(refusal({good}, {"synthesis.clip=false"}),
              HasSubstr("synthesis.clip: only synthesis.source = \"pixels\" has pixels"));
  EXPECT_THAT(refusal({good}, {"distill.l1=1", "distill.fuse=prob"}),
              HasSubstr("distill.l1: compares logits"));
  EXPECT_THAT(refusal({good}, {"distill.nesterov=true", "distill.momentum=0"}),
              HasSubstr("distill.nesterov: needs distill.momentum > 0"));
  EXPECT_THAT(refusal({good}, {"distill.kd=0", "distill.ts=0"}),
              HasSubstr("distill: every loss weight is 0"));
  EXPECT_THAT(with_rounds({"distill.views=2"}), HasSubstr("distill.views: the set grows"));
  EXPECT_THAT(refusal({good}, {"distill.views=2", "distill.pad=0", "distill.flip=false"}),
              HasSubstr("distill.views: without distill.pad"));
}

TEST_F(ConfigTest, RefusesKeysOfMethodsThatDoNotGoTogether) {
  const std::string good = file("good.toml", kGood);
  const auto refused = [&](const std::vector<std::string>& keys, const char* why) {
    EXPECT_THAT(refusal({good}, keys), HasSubstr(why));
  };
  refused({"synthesis.source=maps"}, "synthesis.source maps and distill.replay maps go together");
  refused({"synthesis.source=maps", "distill.replay=maps"}, "synthesis.batches: maps are kept in");
  refused({"synthesis.source=pixels", "synthesis.exchange=0.5"}, "pixels has no maps");
  refused({"synthesis.exchange=0.5", "distill.fuse=conf"}, "distill.fuse: conf needs labels");
  refused({"synthesis.g_ema=0.5"}, "synthesis.g_ema: images of source generator");
  refused({"synthesis.source=noise", "synthesis.save_logits=true"},
          "synthesis.save_logits: synthesis.source = \"noise\" asks no teachers");
  refused({"synthesis.cls_focus=1"}, "only synthesis.cls_mode = \"ens\" reads it");
  refused({"synthesis.adv_heads=1", "rounds.per_epoch=1", "distill.steps_per_epoch=4"},
          "heads with distill.heads > 0 only");
  refused({"rounds.weight_step=0.1"}, "rounds.weight_step: teachers' weights are learnt in rounds");
  refused({"distill.cam=1", "distill.views=1"}, "distill.views = 0");
  refused({"distill.grad_cam=1", "distill.teacher_bn=batch"}, "distill.teacher_bn = \"running\"");
  for (const char* key : {"distill.mix=cutmix", "distill.priority=1"}) {
    refused({"synthesis.source=sampler", "distill.replay=fresh", "rounds.per_epoch=1",
             "distill.steps_per_epoch=4", key},
            "only replay \"pool\"");
    refused({"synthesis.source=maps", "distill.replay=maps", "synthesis.batches=0",
             "rounds.per_epoch=1", "distill.steps_per_epoch=4", key},
            "only replay \"pool\"");
  }
  refused({"distill.agree=1", "distill.kd=0", "distill.l1=1"},
          "distill.agree: needs several teachers");
}

TEST_F(ConfigTest, EveryMethodGoesWithTheDemonstration) {
  const fs::path configs = fs::path(MTCKI_SOURCE_DIR) / "configs";
  int methods = 0;
  for (const auto& entry : fs::directory_iterator(configs / "methods")) {
    EXPECT_EQ(refusal({(configs / "demo.toml").string(), entry.path().string()}, {}), "(accepted)")
        << entry.path();
    ++methods;
  }
  EXPECT_GE(methods, 6);
}

TEST_F(ConfigTest, ResolvedFileGivesSameConfigAndHash) {
  const RunConfig a = load_config(
      {file("a.toml", kGood)},
      {"train.lr=0.1234567890123456789", "data.dir=\"q\\\"uote\\\\ \\t\"", "synthesis.lr_g=1e-5"});
  const std::string text = to_toml(a);
  const RunConfig b = load_config({file("resolved.toml", text)}, {});
  EXPECT_EQ(to_toml(b), text);
  EXPECT_EQ(config_sha256(a), config_sha256(b));
  EXPECT_EQ(b.data.dir, a.data.dir);
  EXPECT_EQ(b.train.lr, a.train.lr);
}

TEST_F(ConfigTest, SaysWhereValuesComeFrom) {
  const std::string first =
                        file("a.toml", "seed = 1\n[[teachers]]\nmodel = \"vgg8\"\nweight = 2\n"),
                    second =
                        file("b.toml", "\n[train]\nlr = 0.2\n[[teachers]]\nmodel = \"resnet8\"\n");
  ConfigOrigins origins;
  const RunConfig c = load_config({first, second}, {"train.epochs=3"}, &origins);
  EXPECT_EQ(origins, (ConfigOrigins{{"seed", first + ":1"},
                                    {"train.lr", second + ":3"},
                                    {"train.epochs", "command line"},
                                    {"teachers.0.model", second + ":5"}}))
      << "the second file's list replaces the first's";
  const std::string text = to_toml(c, &origins);
  EXPECT_THAT(text, ::testing::ContainsRegex("\nlr = 0.2 +# " + second + ":3\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\nepochs = 3 +# command line\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("\nmomentum = 0.9 +# default\n"));
  EXPECT_EQ(to_toml(load_config({file("again.toml", text)}, {})), to_toml(c));
}

TEST_F(ConfigTest, PartsOfABatchAreEqualAndNotTooSmall) {
  const std::string good = file("a.toml", kGood);
  EXPECT_THAT(refusal({good}, {"train.batch_size=30", "train.accumulate=4"}),
              HasSubstr("train.accumulate: 4 parts"));
  EXPECT_THAT(refusal({good}, {"train.batch_size=8", "train.accumulate=8"}),
              HasSubstr("train.accumulate: 8 parts"));
  EXPECT_EQ(refusal({good}, {"train.batch_size=8", "train.accumulate=4"}), "(accepted)");
}

TEST_F(ConfigTest, HashIsOfWhatAffectsResults) {
  const RunConfig base = load_config({file("a.toml", kGood)}, {});
  RunConfig changed = base;
  RunConfig walk = base;
  const auto fields = config_keys::fields(walk);
  for (const auto& f : fields) {
    walk = base;
    // The fields point into `walk`: change one and compare.
    std::visit(
        [&f](const auto& target) {
          using T = std::decay_t<decltype(target)>;
          if constexpr (std::is_same_v<T, config_keys::Mode>) {
            target.set((target.get() + 1) % f.choices.size());
          } else if constexpr (std::is_same_v<T, bool*>) {
            *target = !*target;
          } else if constexpr (std::is_arithmetic_v<std::remove_pointer_t<T>>) {
            *target += 1;
          } else if constexpr (std::is_same_v<T, std::string*>) {
            *target += "x";
          } else {
            target->emplace_back();
          }
        },
        f.target);
    // A loss term of weight 0 leaves the hash as it was before there was the term, and so do no
    // milestones.
    std::set<std::string> silent{"distill.milestones"};
    for (const LossTermRow& row : inversion_terms())
      if (row.weight == 0) silent.insert(str("synthesis.", row.key));
    for (const StudentTermRow& row : student_terms())
      if (row.weight == 0) silent.insert(str("distill.", row.key));
    const bool expected = f.affects_results || f.neutral || silent.count(f.path) > 0;
    EXPECT_EQ(config_sha256(walk) != config_sha256(base), expected) << f.path;
  }
  changed.distill.epochs += 1;
  EXPECT_EQ(config_sha256(changed, {"data", "teachers", "seed"}),
            config_sha256(base, {"data", "teachers", "seed"}));
  EXPECT_NE(config_sha256(changed, {"distill"}), config_sha256(base, {"distill"}));
  EXPECT_THROW(config_sha256(base, {"distil"}), Error);
}

// What run folders hold: a key that comes later leaves it, where it has its default.
TEST_F(ConfigTest, HashesOfEarlierVersionsStay) {
  const std::string good = file("a.toml", kGood);
  EXPECT_EQ(config_sha256(load_config({good}, {})),
            "dd99cc2fe2f920e83dc55f6e83a081ffbee16d908554cb50ec48e6f7f4e0e953");
  EXPECT_EQ(config_sha256(load_config(
                {good}, {"rounds.per_epoch=1", "distill.steps_per_epoch=2", "synthesis.views=roll",
                         "synthesis.beta1=0.9", "distill.teacher_bn=batch", "precision=bf16",
                         "synthesis.source=meta_generator", "distill.l1=0.5"})),
            "0ad2cbbcd4b934a6e6cf6376e35e378e259ebde4fba0bb3b49b537b5d568bee4");
}

TEST_F(ConfigTest, ReferenceListsEveryKey) {
  const std::string text = config_reference();
  EXPECT_THAT(text, HasSubstr("| `synthesis.g_steps` | `200` | >= 1 |"));
  RunConfig sample;
  for (const auto& f : config_keys::fields(sample))
    EXPECT_THAT(text, HasSubstr("`" + f.path + "`"));
}

// x.member or x->member as a whole word.
bool mentions_member(const std::string& code, const std::string& member) {
  for (size_t at = 0; (at = code.find(member, at)) != std::string::npos; at += member.size()) {
    const char before = at > 0 ? code[at - 1] : ' ', after = code[at + member.size()];
    if ((before == '.' || before == '>') && after != '_' &&
        !std::isalnum(static_cast<unsigned char>(after)))
      return true;
  }
  return false;
}

// A key that nothing reads is a lie to the user: its member must be used outside the configuration
// code.
TEST_F(ConfigTest, EveryKeyIsConsumed) {
  std::string code;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(MTCKI_SOURCE_DIR) / "mtcki")) {
    if (entry.path().extension() != ".cpp" && entry.path().extension() != ".h") continue;
    if (entry.path().parent_path().filename() == "config") continue;  // where keys are declared
    std::ifstream in(entry.path());
    std::ostringstream text;
    text << in.rdbuf();
    code += text.str();
  }
  RunConfig sample;
  sample.teachers.resize(1);
  sample.students.resize(1);
  std::set<std::string> rows;  // weights of terms, which the table's users read by their key
  for (const LossTermRow& row : inversion_terms()) rows.insert(str("synthesis.", row.key));
  for (const StudentTermRow& row : student_terms()) rows.insert(str("distill.", row.key));
  for (const auto& f : config_keys::fields(sample)) {
    if (rows.count(f.path) > 0) continue;
    const std::string member = f.path.substr(f.path.rfind('.') + 1);
    EXPECT_TRUE(mentions_member(code, member)) << f.path << " is accepted, but nothing reads it";
  }
}

TEST(Nearest, FindsTyposOnly) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(likely_name("epcohs", {"epochs", "batch"}), "epochs");
  EXPECT_EQ(likely_name("zzz", {"epochs", "batch"}), "");
  EXPECT_EQ(likely_name("lr", {"ab"}), "");
}

}  // namespace
}  // namespace mtcki
