// Teachers of other people: what is refused before anything is computed, and what is said aloud.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/formats/state_file.h"
#include "mtcki/networks/model_file.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

nn::StateDict resnet8(uint64_t seed, int64_t classes = 10) {
  nn::Init init(seed);
  return nn::make_classifier({"resnet8", 3, 32, classes}, init)->state_dict();
}

Tensor& entry_of(nn::StateDict& state, const std::string& name) {
  return std::find_if(state.begin(), state.end(), [&](const auto& e) { return e.first == name; })
      ->second;
}

class TeacherFiles : public CliTest {
 protected:
  std::string save(const std::string& name, const nn::StateDict& state) const {
    const std::string path = (dir_ / name).string();
    data::write_safetensors(path, state);
    return path;
  }
};

TEST_F(TeacherFiles, CheckNamesTheTensorThatCannotWork) {
  const std::string toml = config();
  const auto check = [&](const nn::StateDict& state, const std::vector<const char*>& texts) {
    const Outcome o =
        run({"run", toml, "teachers.0.weights=" + save("w.safetensors", state), "--check"});
    EXPECT_EQ(o.code, 3) << o.err;
    for (const char* text : texts) EXPECT_THAT(o.err, HasSubstr(text));
  };
  nn::StateDict state = resnet8(1);
  std::erase_if(state, [](const auto& e) { return e.first == "layer1.0.bn2.running_var"; });
  check(state, {"missing     layer1.0.bn2.running_var"});
  state = resnet8(1);
  entry_of(state, "layer1.0.conv1.weight") = Tensor::zeros({16, 16, 1, 1});
  check(state, {"layer1.0.conv1.weight: file has [16, 16, 1, 1], model has [16, 16, 3, 3]"});
  check(resnet8(1, 100), {"fc.weight: file has [100, 64], model has [10, 64]"});
  state = resnet8(1);
  entry_of(state, "fc.bias").data<float>()[3] = NAN;
  check(state, {"fc.bias has values that are not finite"});
  state = resnet8(1);
  entry_of(state, "bn1.running_var").data<float>()[0] = -1;
  check(state, {"bn1.running_var has a negative variance"});
  EXPECT_FALSE(fs::exists(dir_ / "runs"));
}

TEST_F(TeacherFiles, MetadataThatCannotBeIsNamedWithItsFile) {
  const std::map<std::string, std::string> good = {{"mtcki.arch", "resnet8"},
                                                   {"mtcki.num_classes", "10"},
                                                   {"mtcki.input", "3x32x32"},
                                                   {"mtcki.mean", "0.5,0.5,0.5"},
                                                   {"mtcki.std", "1,1,1"}};
  const std::string path = (dir_ / "w.safetensors").string();
  const auto inspect = [&](std::map<std::string, std::string> meta) {
    data::write_safetensors(path, resnet8(1), meta);
    return run({"inspect", path});
  };
  EXPECT_EQ(inspect(good).code, 0);
  const std::vector<std::pair<const char*, const char*>> bad = {
      {"mtcki.num_classes", "abc"}, {"mtcki.input", "x32"}, {"mtcki.mean", "a,b,c"},
      {"mtcki.std", "0,0,0"},       {"mtcki.std", "1,1"},   {"mtcki.std", "nan,1,1"}};
  for (const auto& [key, value] : bad) {
    auto meta = good;
    meta[key] = value;
    const Outcome o = inspect(meta);
    EXPECT_EQ(o.code, 3) << key;
    EXPECT_THAT(o.err, HasSubstr(str(path, ": its metadata has ", key, " = \"", value, "\"")));
  }
}

TEST_F(TeacherFiles, AReplacedWeightFileIsSaidAndWhatDependsOnItIsRedone) {
  const std::string weights = save("w.safetensors", resnet8(1));
  const std::vector<std::string> command = {"run", config(), "teachers.0.weights=" + weights};
  const Outcome first = run(command);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("is what guessing gives"));  // never trained
  const auto bytes = [&](const char* name) { return read_file(dir_ / "runs/tiny" / name); };
  const std::string teacher = bytes("teachers/resnet8/model.safetensors"),
                    images = bytes("synth/shard-00000.safetensors"),
                    student = bytes("students/pupil/model.safetensors");
  const Outcome same = run(command);
  EXPECT_EQ(same.code, 0) << same.err;
  EXPECT_THAT(same.err, Not(HasSubstr("made again")));
  save("w.safetensors", resnet8(2));
  const Outcome other = run(command);
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("w.safetensors is not the file that was imported"));
  EXPECT_NE(bytes("teachers/resnet8/model.safetensors"), teacher);
  EXPECT_NE(bytes("synth/shard-00000.safetensors"), images);
  EXPECT_NE(bytes("students/pupil/model.safetensors"), student);
}

TEST_F(TeacherFiles, ClassesInAnotherOrderArePutIntoTheSetsOrder) {
  nn::Init init(3);
  const auto net = nn::make_classifier({"resnet8", 3, 32, 10}, init);
  ModelCard card;
  card.spec = {"resnet8", 3, 32, 10};
  card.normalization = {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
  card.classes = data::load_dataset({"synth10", "", "test", 1}).class_ids;
  const auto top1 = [&](const char* name, std::string* said) {
    const std::string path = (dir_ / name).string();
    write_model_file(path, *net, card);
    const Outcome o =
        run({"eval", "--data", "synth10", "--limit", "100", "--weights", path, "--json"});
    EXPECT_EQ(o.code, 0) << o.err;
    *said = o.err;
    return nlohmann::json::parse(o.out)["top1"].get<double>();
  };
  std::string said;
  const double right = top1("right.safetensors", &said);
  EXPECT_THAT(said, Not(HasSubstr("in the set's order")));
  nn::StateDict state = net->state_dict();  // rows and names reversed
  for (const char* name : {"fc.weight", "fc.bias"}) {
    Tensor& t = entry_of(state, name);
    const std::vector<float> values = t.to_vector<float>();
    const size_t row = values.size() / 10;
    for (size_t i = 0; i < values.size(); ++i)
      t.data<float>()[(9 - i / row) * row + i % row] = values[i];
  }
  net->load_state_dict(state);
  std::reverse(card.classes.begin(), card.classes.end());
  EXPECT_EQ(top1("reversed.safetensors", &said), right);
  EXPECT_THAT(said, HasSubstr("in the set's order now"));
  card.classes[0] = "something else";
  top1("foreign.safetensors", &said);
  EXPECT_THAT(said, HasSubstr("not called as those of synth10"));
}

TEST_F(TeacherFiles, MapFilesPrefixesAndLeftOvers) {
  nn::StateDict state = resnet8(1);
  const auto exported = [&](const std::string& map) {
    const std::string path = save("in.safetensors", state), out = (dir_ / "o.safetensors").string();
    std::vector<std::string> command = {"export",  "weights", "--weights", path,
                                        "--model", "resnet8", "--out",     out};
    if (!map.empty()) command.insert(command.end(), {"--name-map", file("map.txt", map)});
    return run(command);
  };
  for (auto& [name, tensor] : state) name = "_orig_mod.model." + name;
  state.emplace_back("_orig_mod.model.total_ops", Tensor::zeros({1}));
  Outcome o = exported("");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, AllOf(HasSubstr("removed the prefix '_orig_mod.'"),
                           HasSubstr("left out 1 entries that are no weights")));
  // Whole parts: layer1 is no beginning of layer10; a part taken away; entries dropped.
  state = resnet8(1);
  for (auto& [name, tensor] : state) {
    if (name.starts_with("layer1.")) name = "body.layer1" + name.substr(6);
    if (name.starts_with("layer2.")) name = "layer10" + name.substr(6);
  }
  state.emplace_back("aux.weight", Tensor::zeros({1}));
  o = exported("layer1 nowhere\nlayer10 layer2\nbody.\naux -\n");
  EXPECT_EQ(o.code, 0) << o.err;
  o = exported("layer10 layer2\nbody.\n");
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.err, HasSubstr("unexpected  aux.weight"));
}

TEST_F(TeacherFiles, OtherZoosAndWrappersInsideAreNamed) {
  nn::StateDict state = resnet8(1);
  std::string said;
  const auto exported = [&] {
    const Outcome o = run({"export", "weights", "--weights", save("in.safetensors", state),
                           "--model", "resnet8", "--out", (dir_ / "o.safetensors").string()});
    said = o.err;
    return o.code;
  };
  for (auto& [name, tensor] : state)
    name = (name.starts_with("fc.") ? "head." : "backbone.") + name;
  EXPECT_EQ(exported(), 3);
  EXPECT_THAT(said, HasSubstr("it fits with name_map = \"mmpretrain\""));
  EXPECT_THAT(run({"inspect", (dir_ / "in.safetensors").string()}).out,
              HasSubstr("resnet8 (name_map mmpretrain)"));
  state = resnet8(1);
  for (auto& [name, tensor] : state)
    if (name.starts_with("layer1.")) name = "layer1._orig_mod.0.module" + name.substr(8);
  EXPECT_EQ(exported(), 0) << said;
  EXPECT_THAT(said, HasSubstr("removed the part '_orig_mod' from 12 names"));
  // Two names would become one.
  state.emplace_back("layer1.0.conv1.weight", Tensor::zeros({16, 16, 3, 3}));
  EXPECT_EQ(exported(), 3);
}

TEST_F(TeacherFiles, ANetworkBesideSomethingElse) {
  const nn::StateDict plain = resnet8(1);
  std::vector<std::string> notes;
  const auto loads = [&](const nn::StateDict& state) {
    notes.clear();
    const auto net =
        load_model(save("w.safetensors", state), {"resnet8", 3, 32, 10}, "", nullptr, &notes);
    const nn::StateDict got = net->state_dict();
    return std::equal(got.begin(), got.end(), plain.begin(),
                      [](const auto& a, const auto& b) { return identical(a.second, b.second); });
  };
  const auto refusal = [&](const nn::StateDict& state) -> std::string {
    try {
      loads(state);
      return "(accepted)";
    } catch (const DataError& e) {
      return e.what();
    }
  };
  const auto below = [](const std::string& prefix, const nn::StateDict& state, nn::StateDict more) {
    for (const auto& [name, t] : state) more.emplace_back(prefix + name, t);
    return more;
  };
  // Lightning keeps the weights of a loss; attacks hold the network a second time.
  const nn::StateDict loss = {{"criterion.weight", Tensor::full({10}, 1.0)}};
  EXPECT_TRUE(loads(below("model.", plain, loss)));
  EXPECT_THAT(notes.back(), HasSubstr("below 'model.' and left out 1 more (criterion.weigh"));
  EXPECT_TRUE(loads(below("attacker.model.", plain, below("model.", plain, loss))));
  EXPECT_TRUE(loads(below("1.", plain, {{"0.mean", Tensor::full({1, 3, 1, 1}, 0.5)}})));
  EXPECT_THAT(notes.back(), HasSubstr("normalised its images itself: 0.mean = 0.5 0.5 0.5"));
  EXPECT_TRUE(loads(below("ema.of.it.", plain, {})));
  // Never one of two, and never a part of another network.
  EXPECT_THAT(refusal(below("teacher.", plain, below("student.", resnet8(2), {}))),
              HasSubstr("several networks that fit, below \"student\" and \"teacher\""));
  EXPECT_THAT(refusal(below("module.", plain, resnet8(2))),
              HasSubstr("several networks that fit, below \"module\" and at the top; name_map"));
  EXPECT_TRUE(loads(below("module.", plain, plain)));
  nn::Init init(1);
  const auto larger = nn::make_classifier({"resnet14", 3, 32, 10}, init)->state_dict();
  EXPECT_THAT(refusal(below("model.", larger, loss)), HasSubstr("does not fit resnet8"));
  EXPECT_THAT(refusal(below("", plain, loss)), HasSubstr("unexpected  criterion.weight"));
}

TEST_F(TeacherFiles, WeightsInTwoFactors) {
  nn::StateDict state = resnet8(1);
  const Tensor w = entry_of(state, "conv1.weight").clone(), fc = entry_of(state, "fc.weight");
  const auto replace = [&](const std::string& name, const std::string& a, const Tensor& first,
                           const std::string& b, const Tensor& second) {
    std::erase_if(state, [&](const auto& e) { return e.first == name; });
    state.emplace_back(a, first);
    state.emplace_back(b, second);
  };
  Tensor mask = Tensor::zeros(w.shape());
  for (int64_t i = 0; i < mask.numel(); i += 2) mask.data<float>()[i] = 1;
  replace("conv1.weight", "conv1.weight_orig", w, "conv1.weight_mask", mask);
  const Tensor twice = mul(fc, 2.0), norms = sqrt(sum(mul(fc, fc), {1}, true));
  replace("fc.weight", "fc.parametrizations.weight.original0", norms,
          "fc.parametrizations.weight.original1", twice);
  const Tensor other = entry_of(state, "layer1.0.conv1.weight").clone();
  replace("layer1.0.conv1.weight", "layer1.0.conv1.weight_g",
          sqrt(sum(mul(other, other), {1, 2, 3}, true)), "layer1.0.conv1.weight_v", other);
  std::vector<std::string> notes;
  const auto net =
      load_model(save("w.safetensors", state), {"resnet8", 3, 32, 10}, "", nullptr, &notes);
  nn::StateDict got = net->state_dict();
  EXPECT_TRUE(identical(entry_of(got, "conv1.weight"), mul(w, mask)));
  EXPECT_TRUE(allclose(entry_of(got, "fc.weight"), fc, 1e-6, 1e-7));
  EXPECT_TRUE(allclose(entry_of(got, "layer1.0.conv1.weight"), other, 1e-6, 1e-7));
  EXPECT_THAT(notes.back(), HasSubstr("two factors of 3 weights (conv1.weight, ...)"));
  // Two of the same size are no norm and direction, but a parametrisation of somebody's own.
  replace("layer2.0.conv1.weight", "layer2.0.conv1.parametrizations.weight.original0",
          entry_of(got, "layer2.0.conv1.weight"),
          "layer2.0.conv1.parametrizations.weight.original1",
          entry_of(got, "layer2.0.conv1.weight"));
  EXPECT_THROW(load_model(save("own.safetensors", state), {"resnet8", 3, 32, 10}, ""), DataError);
}

TEST_F(TeacherFiles, InspectShowsTheStatisticsLayerByLayer) {
  const std::string weights = save("w.safetensors", resnet8(1));
  const Outcome o = run({"inspect", weights});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("fits by names and shapes: resnet8"),
                           HasSubstr("layer3.0.bn2"), HasSubstr("normalised units")));
  refused({"inspect", save("odd.safetensors", {{"a", Tensor::zeros({2})}})}, 3,
          "fits no network of the registry");
  refused({"inspect", weights, "--mean", "0.5", "--std", "0.5"}, 2,
          "1 values for 3 input channels");
}

}  // namespace
}  // namespace mtcki
