#include "pipelines/pattern_dump.h"

#include <fmt/ranges.h>

#include "core/torch.h"
// After the precompiled header.
#include "attention/layout_tensors.h"
#include "core/error.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

// Heads of one layer may follow rules of their own: those get a file each, told apart by the first of the heads, since
// two rules may name one method.
std::string file_name(const attention::AttentionEvent& event) {
  const bool is_all = static_cast<int64_t>(event.heads.size()) == event.all_heads;
  return fmt::format("step{:04}_layer{:02}_{}{}.safetensors", event.site.step, event.site.layer,
                     branch_name(event.site.branches.at(0)),
                     is_all ? "" : fmt::format("_head{:02}_{}", event.heads.front(), event.method));
}

void write_call(const std::filesystem::path& folder, const attention::AttentionEvent& event) {
  std::map<std::string, at::Tensor> tensors = {{"out", event.out.to(at::kCPU, at::kFloat).contiguous()},
                                               {"lse", event.lse.to(at::kCPU).contiguous()}};
  const LayoutPtr layout = event.layout ? event.layout : attention::one_block(event.out.size(2));
  tensors.emplace("level", attention::level_tensor(*layout));
  attention::add_geometry(*layout, event.orders, tensors);
  weights::save_safetensors(folder / file_name(event), tensors,
                            {{"method", event.method},
                             {"kernel", event.kernel},
                             {"note", event.plan.note},
                             {"heads", fmt::format("{}", fmt::join(event.heads, ","))},
                             {"sigma", fmt::format("{}", event.site.sigma)},
                             {"density", fmt::format("{}", event.density)},
                             {"selection_ms", fmt::format("{:.3f}", event.selection_ms)},
                             {"attention_ms", fmt::format("{:.3f}", event.milliseconds)}});
}

}  // namespace

attention::AttentionObserver make_pattern_dump(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  return {.on_call = [folder](const attention::AttentionEvent& event) { write_call(folder, event); },
          .wants_lse = true};
}

}  // namespace strobe::pipelines
