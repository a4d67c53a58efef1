#include "mtcki/config/table_names.h"
#include "mtcki/distillation/replay/replay.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

struct Row {
  const char* name;  // of distill.replay
  std::unique_ptr<Replay> (*make)(const ReplayContext&);
};

constexpr Row kReplays[] = {{"pool", make_pool_replay}, {"fresh", make_fresh_replay}};

}  // namespace

std::vector<std::string> replay_names() {
  std::vector<std::string> names;
  for (const Row& row : kReplays) names.emplace_back(row.name);
  return names;
}

std::unique_ptr<Replay> make_replay(const ReplayContext& context) {
  for (const Row& row : kReplays)
    if (context.config.replay == row.name) return row.make(context);
  throw Error("no replay is called " + context.config.replay);
}

}  // namespace mtcki
