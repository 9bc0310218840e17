// What `generate` and `replay` do alike before the first clip: model, jobs, where weights wait.
#pragma once

#include <memory>
#include <vector>

#include "pipelines/memory_plan.h"
#include "pipelines/runner.h"

namespace strobe::tools {

struct ClipSetup {
  std::unique_ptr<models::ModelFolder> folder;
  pipelines::RunFacts facts;
  std::vector<pipelines::PreparedJob> jobs;
  pipelines::MemoryPlan memory;
};

// `effective` in the terms of generate's keys. Throws what refuses a job or the whole run.
ClipSetup set_up_clips(const ConfigNode& effective, bool keeps_going);
// Takes the folder.
pipelines::Pipeline make_pipeline(ClipSetup& setup, const ConfigNode& effective);

}  // namespace strobe::tools
