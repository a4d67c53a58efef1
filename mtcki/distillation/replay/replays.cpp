#include <algorithm>

#include "mtcki/config/table_names.h"
#include "mtcki/distillation/replay/replay.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

struct Row {
  const char* name;  // of distill.replay
  std::unique_ptr<Replay> (*make)(const ReplayContext&);
  bool keeps;  // the images of rounds
};

constexpr Row kReplays[] = {{"pool", make_pool_replay, true},
                            {"fresh", make_fresh_replay, false},
                            {"maps", make_maps_replay, true}};

}  // namespace

std::vector<std::string> replay_names() {
  std::vector<std::string> names;
  for (const Row& row : kReplays) names.emplace_back(row.name);
  return names;
}

bool replay_keeps(const std::string& name) {
  return std::ranges::any_of(kReplays,
                             [&](const Row& row) { return name == row.name && row.keeps; });
}

std::unique_ptr<Replay> make_replay(const ReplayContext& context) {
  for (const Row& row : kReplays)
    if (context.config.replay == row.name) return row.make(context);
  throw Error("no replay is called " + context.config.replay);
}

}  // namespace mtcki
