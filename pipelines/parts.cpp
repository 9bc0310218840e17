#include "pipelines/parts.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/timer.h"

namespace strobe::pipelines {
namespace {

bool are_same(const std::vector<weights::Lora>& a, const std::vector<weights::Lora>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const weights::Lora& x, const weights::Lora& y) {
    return x.path == y.path && x.weight == y.weight;
  });
}

}  // namespace

std::string offload_name(Offload offload) {
  return offload == Offload::kNone ? "none" : offload == Offload::kModel ? "model" : "layers";
}

void Parts::set_loras(const std::vector<weights::Lora>& loras) {
  if (are_same(loras, loras_)) return;
  dits_.clear();
  const Timer timer;
  plan_ = loras.empty() ? weights::LoraPlan() : folder_.plan_loras(loras);
  loras_ = loras;
  load_ms_ += timer.milliseconds();
}

const models::DiTModel& Parts::dit(int stage, bool keeps_others) {
  if (options_.offload != Offload::kNone) vae_.reset();
  auto& dit = dits_[stage];
  if (dit) return *dit;
  // Before the next one takes its place.
  if (!keeps_others || options_.offload != Offload::kNone) {
    std::erase_if(dits_, [&](const auto& row) { return row.first != stage; });
  }
  const Timer timer;
  models::DitOptions options{
      .dtype = options_.dtype,
      .device = options_.device,
      .residency = options_.offload == Offload::kLayers ? models::Residency::kStreamed : models::Residency::kLoaded};
  if (!plan_.patches.empty()) options.patches = plan_.patches.at(static_cast<size_t>(stage));
  dit = folder_.load_dit(stage, options);
  load_ms_ += timer.milliseconds();
  return *dit;
}

const models::Vae& Parts::vae(bool keeps_dit) {
  if (!keeps_dit || options_.offload != Offload::kNone) dits_.clear();
  if (!vae_) {
    const Timer timer;
    vae_ = folder_.load_vae(at::kFloat, options_.device);
    load_ms_ += timer.milliseconds();
  }
  return *vae_;
}

}  // namespace strobe::pipelines
