#include "tools/clip_setup.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/log.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

using pipelines::Job;
using pipelines::PreparedJob;

std::optional<pipelines::Offload> asked_offload(const ConfigNode& effective) {
  const std::string name = effective.get_string("offload", "auto");
  if (name == "none") return pipelines::Offload::kNone;
  if (name == "model") return pipelines::Offload::kModel;
  if (name == "layers") return pipelines::Offload::kLayers;
  return std::nullopt;
}

std::filesystem::path embedding_folder(const ConfigNode& effective) {
  const std::string asked = effective.get_string("embedding_cache", "");
  if (asked == "off") return {};
  return asked.empty() ? cache_folder() / "embeddings" : std::filesystem::path(asked);
}

pipelines::MemoryPlan decide_memory(const ConfigNode& effective, const models::ModelFolder& folder,
                                    const std::vector<PreparedJob>& jobs, const pipelines::Device& device) {
  std::vector<const Job*> clips;
  for (const PreparedJob& job : jobs) {
    if (job.error.empty()) clips.push_back(&job.job);
  }
  pipelines::MemoryLimit limit = pipelines::machine_memory();
  if (const double gib = effective.get_number("max_vram_gib", 0); gib > 0) {
    limit.bytes = static_cast<int64_t>(gib * (1 << 30));
    limit.words = "--max-vram allows";
  }
  return pipelines::plan_memory(folder, clips, device, asked_offload(effective), limit);
}

}  // namespace

ClipSetup set_up_clips(const ConfigNode& effective, bool keeps_going) {
  const std::string model = effective.get_string("model", "");
  ClipSetup setup;
  setup.facts = {.device = device_of(effective), .model = model, .build = build_facts(), .machine = machine_facts()};
  setup.folder = open_model(model);
  setup.jobs = pipelines::prepare_jobs(pipelines::list_jobs(effective, setup.folder->info().name), *setup.folder,
                                       keeps_going, setup.facts);
  setup.memory = decide_memory(effective, *setup.folder, setup.jobs, setup.facts.device);
  setup.facts.offload = setup.memory.offload;
  log_debug("offload {}, planned memory {:.2f} GB ({})", pipelines::offload_name(setup.memory.offload),
            static_cast<double>(setup.memory.peak_bytes) / 1e9, setup.memory.stage);
  return setup;
}

pipelines::Pipeline make_pipeline(ClipSetup& setup, const ConfigNode& effective) {
  const auto& weights = setup.facts.weights;
  std::string key = setup.facts.build.get_string("commit", "");
  for (const char* part : {"text_encoder", "tokenizer"}) {
    if (weights.contains(part)) key += "\n" + weights.at(part);
  }
  return {std::move(setup.folder),
          {.device = setup.facts.device,
           .offload = setup.facts.offload,
           .embedding_cache = embedding_folder(effective),
           .embedding_key = key}};
}

}  // namespace strobe::tools
