// Files that are not what they should be: pipes, devices, links, endless or deep content, names that
// steer a terminal. Each is refused at once, in few lines, without a change elsewhere.
#include <sys/resource.h>
#include <sys/stat.h>

#include <chrono>

#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

class CliHostile : public CliTest {
 protected:
  fs::path folder() const { return dir_ / "runs" / "tiny"; }
  // A safetensors file whose header is `header`, with n bytes of data.
  std::string safetensors(const std::string& header, size_t n) const {
    std::string size(8, '\0');
    for (size_t i = 0; i < 8; ++i) size[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    return file("x.safetensors", size + header + std::string(n, '\0'));
  }
  std::vector<std::string> exporting(const std::string& weights) const {
    return {"export",  "weights", "--weights", weights,
            "--model", "resnet8", "--out",     (dir_ / "o.safetensors").string()};
  }
  // Seconds of this process's children, and their largest size in bytes.
  static double child_seconds() {
    rusage u{};
    getrusage(RUSAGE_CHILDREN, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
  }
  static double child_bytes() {
    rusage u{};
    getrusage(RUSAGE_CHILDREN, &u);
    return 1024.0 * static_cast<double>(u.ru_maxrss);
  }
};

TEST_F(CliHostile, PipesAndDevicesWhereFilesAreExpected) {
  ASSERT_EQ(run({"run", config()}).code, 0);
  const fs::path kept = dir_ / "kept";
  fs::copy(folder(), kept, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::path step;
  for (const auto& e : fs::directory_iterator(folder() / "teachers/resnet8/ckpt"))
    if (!e.is_symlink()) step = fs::relative(e.path(), folder());
  for (const fs::path& name :
       {fs::path("metrics.jsonl"), fs::path("log.txt"), fs::path("config.toml"),
        fs::path("result.json"), fs::path("manifest.json"), fs::path("lock"),
        fs::path("teachers/resnet8/done.json"), fs::path("teachers/resnet8/model.safetensors"),
        fs::path("synth/manifest.json"), step / "state.json", step / "state.safetensors"}) {
    for (const bool device : {false, true}) {
      fs::remove_all(folder());
      fs::copy(kept, folder(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      if (name.string().find("ckpt") != std::string::npos)
        fs::remove(folder() / "teachers/resnet8/done.json");
      fs::remove(folder() / name);
      if (device)
        fs::create_symlink("/dev/zero", folder() / name);
      else
        ASSERT_EQ(mkfifo((folder() / name).c_str(), 0644), 0);
      const Outcome o = run({"run", config()});  // not for ever, and not killed
      EXPECT_TRUE(o.code == 0 || o.code == 2 || o.code == 3 || o.code == 6) << name << o.err;
      const Outcome r = run({"report", folder().string()});
      EXPECT_TRUE(r.code == 0 || r.code == 2 || r.code == 3 || r.code == 6) << name << r.err;
    }
  }
  EXPECT_LT(child_bytes(), 1e9);
}

TEST_F(CliHostile, NoDeviceOrLinkIsReplaced) {
  ASSERT_EQ(run({"train", config()}).code, 0);
  const fs::path pipe = dir_ / "pipe", notes = dir_ / "notes", link = dir_ / "link";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0644), 0);
  std::ofstream(notes) << "mine";
  fs::create_symlink(notes, link);
  for (const fs::path& out : {pipe, link}) {
    refused({"report", folder().string(), "--out", out.string()}, 6, "it is there and a");
    EXPECT_FALSE(fs::is_regular_file(fs::symlink_status(out)));
  }
  EXPECT_EQ(read_file(notes), "mine");
  // Nor is another file shown as a picture of the run.
  std::ofstream(dir_ / "secret.png", std::ios::binary) << "\x89PNG\r\n\x1a\nsecret";
  fs::create_symlink(dir_ / "secret.png", folder() / "samples/z-00000002.png");
  std::ofstream(folder() / "samples/z-00000003.png") << "root:x:0:0";
  ASSERT_EQ(run({"report", folder().string()}).code, 0);
  const std::string html = read_file(folder() / "report.html");
  EXPECT_THAT(html, AllOf(Not(HasSubstr("c2VjcmV0")), Not(HasSubstr("cm9vdDp4"))));
}

TEST_F(CliHostile, DeepJson) {
  ASSERT_EQ(run({"train", config()}).code, 0);
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  const fs::path marker = folder() / "teachers/resnet8/done.json";
  std::ofstream(marker) << R"({"config_sha256":"x","crc32c":1,"a":)" << deep << "}";
  refused({"train", config()}, 3, "done.json: damaged; delete it");
  fs::remove(marker);
  ASSERT_EQ(run({"train", config()}).code, 0);
  std::ofstream(folder() / "manifest.json") << R"({"attempts":[],"a":)" << deep << "}";
  refused({"train", config()}, 3, "manifest.json: damaged; delete it");
}

TEST_F(CliHostile, SmallFilesThatWantMuch) {
  const double before = child_seconds();
  // A hundred million empty tuples, deflated: 97 kB. As a stored pickle the same in short.
  const std::string pickle = std::string("\x80\x02(", 3) + std::string(2'000'000, ')') + "t.";
  refused(exporting(file("x.pth", std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8"
                                              "\x50\x19.\x80\x02M\xe9\x03.",
                                              21) +
                                      pickle)),
          3, "at most 300000 values");
  // Many tensors of long names.
  std::string header = "{";
  for (int i = 0; i < 4000; ++i)
    header += (i ? ",\"" : "\"") + std::to_string(i) + std::string(10000, 'n') +
              R"(":{"dtype":"F32","shape":[],"data_offsets":[)" + std::to_string(4 * i) + "," +
              std::to_string(4 * i + 4) + "]}";
  Outcome o = run(exporting(safetensors(header + "}", 16000)));
  EXPECT_EQ(o.code, 3) << o.err.substr(0, 1000);
  EXPECT_LT(o.err.size(), 20000u);
  header = "{";
  for (int i = 0; i < 20000; ++i)
    header += (i ? ",\"t" : "\"t") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[],"data_offsets":[)" + std::to_string(i) + "," +
              std::to_string(i + 1) + "]}";
  o = run(exporting(safetensors(header + "}", 20000)));
  EXPECT_EQ(o.code, 3) << o.err.substr(0, 1000);
  EXPECT_LT(o.err.size(), 20000u);
  EXPECT_THAT(o.err, HasSubstr("more"));
  // Teachers without number.
  std::string tables;
  for (int i = 0; i < 10000; ++i) tables += "[[teachers]]\nmodel=\"resnet8\"\n";
  refused({"run", file("many.toml", tables)}, 2, "more than 1000 tables");
  refused({"run", file("large.toml", std::string(2 << 20, '#'))}, 3, "expected at most 1048576");
  EXPECT_LT(child_seconds() - before, 20);
  EXPECT_LT(child_bytes(), 6e8);
}

TEST_F(CliHostile, NamesThatSteerATerminal) {
  const std::string name = R"(\u001b[2J\nok: all good \u009b31m \u202e)";
  const Outcome o = run(exporting(
      safetensors("{\"" + name + R"(":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}})", 16)));
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.err, AllOf(HasSubstr("\\x1b[2J\\x0aok: all good"), Not(HasSubstr("\x1b")),
                           Not(HasSubstr("\xc2\x9b")), Not(HasSubstr("\xe2\x80\xae"))));
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1);
  const Outcome key = run({"run", file("esc.toml", "\"\\u001B[31m\\nok\" = 3\n")});
  EXPECT_EQ(key.code, 2);
  EXPECT_THAT(key.err, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace mtcki
