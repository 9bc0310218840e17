// Whether a run fits this machine, and where its weights have to wait so that it does.
//
// Method   The estimates of plan.h for the largest clip; with kLayers three blocks of the transformer count instead of
//          all. Estimates: a run that is allowed may still run out, one that is refused may have just fitted.
// Errors   UnsupportedError naming the planned and the available bytes, and what would need less.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipelines/parts.h"
#include "pipelines/pipeline.h"

namespace strobe::pipelines {

struct MemoryLimit {
  int64_t bytes = 0;       // that the run may use
  int64_t free_bytes = 0;  // of which are free now
  std::string words;       // "this machine has", "--max-vram allows"
};

// Of the CPU's memory: what is installed, and what can be had without swapping.
MemoryLimit machine_memory();

struct MemoryPlan {
  Offload offload = Offload::kNone;
  int64_t peak_bytes = 0;
  std::string stage;  // that needs it: "text", "denoise", "decode"
};

// `asked` empty: the first of none, model, layers that fits the free memory, or else the limit.
MemoryPlan plan_memory(const models::ModelArchitecture& model, const std::vector<const Job*>& jobs,
                       const Device& device, std::optional<Offload> asked, const MemoryLimit& limit);

}  // namespace strobe::pipelines
