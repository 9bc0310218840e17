#include "kernels/block_attention/block_attention.h"

#include "kernels/block_attention/reference.h"
#include "kernels/block_attention/tiled_attention.h"
#include "kernels/block_attention/tiles.h"
#include "kernels/common/machine.h"

namespace strobe::kernels {
namespace {

constexpr int32_t kMaxHeadDim = 256;

enum class Dtypes { kAnyDtype, kBFloat16Only };

template <bool Machine::*feature, Dtypes dtypes>
std::string refusal(const BlockAttentionParams& params) {
  if (!(machine().*feature)) return missing_feature(feature);
  if (dtypes == Dtypes::kBFloat16Only && params.dtype != ScalarType::kBFloat16) return "has bf16 only";
  return params.head_dim > kMaxHeadDim ? head_dim_refusal(params.head_dim, kMaxHeadDim) : "";
}

template <const TileOps& (*ops)()>
void run(const BlockAttentionParams& params) {
  run_tiled_attention(ops(), params);
}

}  // namespace

const std::vector<BlockAttentionKernel>& block_attention_kernels() {
  static const std::vector<BlockAttentionKernel> kernels = {
#define STROBE_BLOCK_ATTENTION(name, feature, dtypes, ops) \
  {#name, refusal<&Machine::feature, Dtypes::dtypes>, run<ops>},
#include "kernels/block_attention/block_attention.inc"
#undef STROBE_BLOCK_ATTENTION
      {"block_attention_reference", [](const BlockAttentionParams&) { return std::string(); }, run_reference_attention},
  };
  return kernels;
}

}  // namespace strobe::kernels
