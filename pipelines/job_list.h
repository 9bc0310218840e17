// From one effective configuration to the list of clips that it asks for.
//
// Contract  Prompts in the order given; `start`, `limit` and `shard` choose among them, `num_videos` makes clips of each
//           with seeds N, N+1 ... The index of a clip does not depend on what was chosen, so shards and later runs give
//           the same names. A seed of -1 is drawn here, once a prompt. Outputs are expanded by output_names.h.
// Errors    ConfigError for no prompt, for two clips under one name, for what fits no request. A prompt whose own line is
//           wrong is a JobSpec with `error`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/config_node.h"
#include "pipelines/request.h"

namespace strobe::pipelines {

struct JobSpec {
  int64_t index = 0;  // of the clip in the whole list
  Request request;
  ConfigNode effective;  // the clip's settings with their origins
  std::string place;     // "prompts.txt:3", "--prompt"
  std::string error;     // why it cannot be made; empty: it can
  bool is_seed_drawn = false;
  std::vector<std::filesystem::path> new_folders;  // that a pattern or a list puts outputs into; one level is made
};

std::vector<JobSpec> list_jobs(const ConfigNode& effective, const std::string& model_name);

}  // namespace strobe::pipelines
