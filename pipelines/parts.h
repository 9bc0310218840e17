// The loaded parts of a model: which of them wait in memory, and which are brought when they are needed.
//
// Contract  kNone    what was loaded stays while more clips follow; behind the last clip that needs it, it goes.
//           kModel   one part at a time: an expert, or the VAE.
//           kLayers  as kModel, and a transformer's blocks stay in the weights file but for the one at work and the next.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/model_folder.h"

namespace strobe::pipelines {

enum class Offload { kNone, kModel, kLayers };

std::string offload_name(Offload offload);

struct PartsOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  Offload offload = Offload::kNone;
};

class Parts {
 public:
  Parts(const models::ModelFolder& folder, PartsOptions options) : folder_(folder), options_(options) {}

  // LoRAs of the transformers from here on; others than before drop what is loaded.
  void set_loras(const std::vector<weights::Lora>& loras);
  const std::vector<weights::LoraUse>& lora_uses() const { return plan_.uses; }

  // `keeps_others`: another expert that is loaded may be asked for again.
  const models::DiTModel& dit(int stage, bool keeps_others);
  const models::Vae& vae(bool keeps_dit);
  void release_dits() { dits_.clear(); }
  void release_vae() { vae_.reset(); }

  Offload offload() const { return options_.offload; }
  // Time in loading since the last call.
  double take_load_ms() { return std::exchange(load_ms_, 0.0); }

 private:
  const models::ModelFolder& folder_;
  PartsOptions options_;
  std::vector<weights::Lora> loras_;
  weights::LoraPlan plan_;
  std::map<int, std::unique_ptr<models::DiTModel>> dits_;
  std::unique_ptr<models::Vae> vae_;
  double load_ms_ = 0;
};

}  // namespace strobe::pipelines
