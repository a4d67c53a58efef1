// data: which sets there are, whether their files are whole, where to get them.
#include <cstdio>

#include "data/sets/dataset.h"
#include "data/sets/verify.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/console.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct DataOptions {
  std::string name, dir, fit = "crop";
  int64_t size = 0, skip_bad = 0;  // verify
};

// Reading the test part finds what sizes and checksums cannot: labels, image files, classes.
void read_both_parts(const DataOptions& o) {
  for (const char* split : {"train", "test"}) {
    const data::ImageSet set =
        data::load_dataset({o.name, o.dir, split, 0, 0, o.size, o.fit, 0, o.skip_bad});
    if (!set.note.empty()) console::info(str(o.name, " ", split, ": ", set.note));
    put("{:<6} {} images {}x{}x{}, {} classes\n", split, set.size(), set.images.size(1),
        set.images.size(2), set.images.size(3), set.num_classes());
  }
}

int data_list_command() {
  for (const std::string& name : data::dataset_names()) {
    const data::DatasetInfo info = data::dataset_info(name);
    put("{:<14} {}\n{:<14} from: {}\n", name, info.description, "", info.source);
    if (!info.procedural)
      put("{:<14} {}: {}\n", "", data::dataset_found(name) ? "found" : "not found",
          data::dataset_default_dir(name));
  }
  return 0;
}

int data_verify_command(const DataOptions& o) {
  const data::VerifyReport report = data::verify_dataset(o.name, o.dir);
  for (const data::VerifyRow& row : report.rows) {
    put("{:<11} {}", data::name_of(row.status), console::printable(row.expected.path));
    if (row.status == data::FileStatus::bad_size)
      put(" ({} bytes, expected {})", row.actual_bytes, row.expected.bytes);
    if (row.status == data::FileStatus::warning)
      put(" (md5 {}, expected {})", row.actual_md5, row.expected.md5);
    put("{}\n", row.note.empty() ? "" : " (" + row.note + ")");
  }
  std::fflush(stdout);
  if (!report.usable)
    throw DataError(str(report.dataset, " in \"", report.dir, "\" is not usable",
                        report.repair.empty() ? "" : "; repair: " + report.repair));
  read_both_parts(o);
  std::printf("%s is fine\n", o.name.c_str());
  return 0;
}

int data_get_command(const DataOptions& o) {
  data::fetch_dataset(o.name, o.dir, [](const std::string& line) { console::info(line); });
  return data_verify_command(o);
}

}  // namespace

void add_data(CommandLine* line) {
  const auto o = std::make_shared<DataOptions>();
  CLI::App* data = line->app->add_subcommand("data", "data sets: list, verify, get");
  data->require_subcommand(1);
  CLI::App* list =
      data->add_subcommand("list", "known sets, where they are looked for, whether they are there");
  line->commands.push_back({list, data_list_command});
  for (const char* name : {"verify", "get"}) {
    CLI::App* s = data->add_subcommand(
        name, name == std::string("verify") ? "check sizes, checksums and content of a set's files"
                                            : "download a set with curl and verify it");
    s->add_option("name", o->name, "data set (mtcki data list)")->required();
    s->add_option("--data-dir", o->dir, "its folder");
    if (name == std::string("get")) {
      line->commands.push_back({s, [o] { return data_get_command(*o); }});
      continue;
    }
    line->commands.push_back({s, [o] { return data_verify_command(*o); }});
    s->add_option("--data-size", o->size, kDataSize)->check(range(0, 4096));
    s->add_option("--data-fit", o->fit, kDataFit)->check(one_of({"crop", "pad"}));
    s->add_option("--skip-bad", o->skip_bad, kSkipBad)->check(count());
  }
}

}  // namespace mtcki::cli
