#include "pipelines/memory_plan.h"

#include <fstream>
#include <set>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "pipelines/plan.h"

namespace strobe::pipelines {
namespace {

constexpr int64_t kProgramBytes = int64_t{300} << 20;  // LibTorch, FFmpeg and the rest
constexpr int64_t kStreamedBlocks = 3;                 // at work, next, and one on its way out

std::string gigabytes(int64_t bytes) { return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9); }

MemoryPlan peak_of(const Plan& plan, Offload offload, bool has_more_clips) {
  const bool keeps = offload == Offload::kNone && has_more_clips;
  int64_t dit = plan.denoise.weight_bytes;
  if (keeps) dit *= plan.info.stages;
  if (offload == Offload::kLayers) dit = dit * kStreamedBlocks / std::max<int64_t>(plan.work.forward.layers, 1);
  const std::pair<const char*, int64_t> stages[] = {
      {"text", plan.text.total_bytes()},
      {"denoise",
       dit + plan.denoise.activation_bytes + plan.denoise.state_bytes + (keeps ? plan.decode.weight_bytes : 0)},
      {"decode", plan.decode.total_bytes() + (keeps ? dit : 0)}};
  MemoryPlan peak{.offload = offload};
  for (const auto& [stage, bytes] : stages) {
    if (bytes + kProgramBytes > peak.peak_bytes) {
      peak.peak_bytes = bytes + kProgramBytes;
      peak.stage = stage;
    }
  }
  return peak;
}

// "MemTotal:   24000 kB" in bytes; 0 if the system does not say.
int64_t meminfo(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string word;
  for (int64_t kilobytes = 0; file >> word;) {
    if (word == name + ":" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// A container's own bound; 0 for none.
int64_t cgroup_limit() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t bytes = 0;
  return file >> bytes ? bytes : 0;
}

}  // namespace

MemoryLimit machine_memory() {
  MemoryLimit limit{.bytes = meminfo("MemTotal"), .free_bytes = meminfo("MemAvailable"), .words = "this machine has"};
  if (const int64_t bound = cgroup_limit(); bound > 0 && bound < limit.bytes) {
    limit.bytes = bound;
    limit.free_bytes = std::min(limit.free_bytes, bound);
    limit.words = "this container may use";
  }
  return limit;
}

MemoryPlan plan_memory(const models::ModelArchitecture& model, const std::vector<const Job*>& jobs,
                       const Device& device, std::optional<Offload> asked, const MemoryLimit& limit) {
  const Job* largest = nullptr;
  std::vector<Offload> choices = {Offload::kNone, Offload::kModel, Offload::kLayers};
  if (asked) choices = {*asked};
  std::vector<MemoryPlan> peaks(choices.size());
  // Thousands of prompts of one size are one plan: it depends on nothing else of a clip.
  std::set<PlanKey> seen;
  for (const Job* job : jobs) {
    if (!seen.insert(plan_key(*job)).second) continue;
    const Plan plan =
        make_plan(model, job->request, {.device = device}, {.linear = 1, .attention = 1, .convolution = 1});
    for (size_t i = 0; i < choices.size(); ++i) {
      const MemoryPlan peak = peak_of(plan, choices[i], jobs.size() > 1);
      if (peak.peak_bytes <= peaks[i].peak_bytes) continue;
      peaks[i] = peak;
      if (i + 1 == choices.size()) largest = job;
    }
  }
  if (!largest || limit.bytes <= 0) return {.offload = choices.front()};
  for (const int64_t room : {std::min(limit.free_bytes, limit.bytes), limit.bytes}) {
    for (const MemoryPlan& peak : peaks) {
      if (peak.peak_bytes <= room) return peak;
    }
  }
  const MemoryPlan& best = peaks.back();
  const std::string advice = best.stage == "decode" && !largest->request.uses_vae_tiling
                                 ? "fewer frames, a smaller size or --vae-tiling need less"
                             : best.offload != Offload::kLayers && best.stage == "denoise"
                                 ? "--offload layers, fewer frames or a smaller size need less"
                                 : "fewer frames or a smaller size need less";
  throw UnsupportedError(fmt::format("{} frames {}x{}: planned memory {} ({}), {} {}; {}", largest->num_frames,
                                     largest->width, largest->height, gigabytes(best.peak_bytes), best.stage,
                                     limit.words, gigabytes(limit.bytes), advice));
}

}  // namespace strobe::pipelines
