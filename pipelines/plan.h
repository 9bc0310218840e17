// What a run costs, before any weight is read: tokens, FLOPs, memory and, at rates measured on this machine, time.
//
// Units    FLOPs with a multiply-add as 2, of matrix products, attention and convolutions of the whole run; bytes;
//          seconds. Memory and time are estimates (models/model_work.h, calibration.h); a machine that does more than
//          products needs longer.
// Errors   ConfigError and UnsupportedError as for the same request to generate: what sizes alone tell of its attention
//          (attention_plan.h), and a forced kernel that cannot run.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "models/model_folder.h"
#include "pipelines/attention_plan.h"
#include "pipelines/calibration.h"
#include "pipelines/pipeline.h"
#include "pipelines/request.h"

namespace strobe::pipelines {

struct PlanFlops {
  double self_attention = 0, cross_attention = 0;
  double linear = 0;  // every other layer of the transformer
  double text = 0, vae = 0;
  double total() const { return self_attention + cross_attention + linear + text + vae; }
};

struct StageMemory {
  int64_t weight_bytes = 0;  // in the run's dtype; where it is the stored one, these are pages of the file
  int64_t activation_bytes = 0;
  int64_t state_bytes = 0;  // what attention methods remember between steps, at most
  int64_t total_bytes() const { return weight_bytes + activation_bytes + state_bytes; }
};

struct PlanSeconds {
  double text = 0, denoise = 0, decode = 0;
  double total() const { return text + denoise + decode; }
};

struct Plan {
  models::ModelInfo info;
  Job job;
  int64_t text_tokens = 0;         // of each prompt
  int64_t prompts = 1;             // 2 with a negative one
  int64_t forwards = 0;            // of the transformer, all branches of all steps
  std::vector<int> stage_steps;    // by expert
  AttentionPlanSummary attention;  // its density scales the self-attention pairs
  models::ModelWork work;
  std::vector<models::StoredPart> weights;
  PlanFlops flops;
  StageMemory text, denoise, decode;
  Rates rates;
  PlanSeconds seconds;

  int64_t peak_bytes() const;
  // Self attention's share of the denoising time if it were dense, and the speed-up that its density allows at most.
  double self_attention_share() const;
  double speedup_bound() const;
};

struct PlanOptions {
  Device device;
  int64_t text_tokens = 0;  // of a prompt, end token included; 0: as many as the model takes
};

// Whether its attention can run; clips with one key have one answer, and one plan but for texts.
using PlanKey = std::tuple<std::vector<int64_t>, std::vector<double>, int, std::vector<std::string>, int64_t>;
PlanKey plan_key(const Job& job);

Plan make_plan(const models::ModelArchitecture& model, const Request& request, const PlanOptions& options,
               const Rates& rates);

}  // namespace strobe::pipelines
