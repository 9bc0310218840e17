#include "kernels/block_attention/block_attention.h"

#include "kernels/block_attention/reference.h"
#include "kernels/block_attention/tiled_attention.h"
#include "kernels/block_attention/tiles.h"
#include "kernels/common/machine.h"

namespace strobe::kernels {
namespace {

constexpr int32_t kMaxHeadDim = 256;

enum class Dtypes { kAnyDtype, kBFloat16Only };

// What the machine lacks, by the member of Machine.
constexpr const char* missing(bool Machine::*feature) {
  if (feature == &Machine::has_avx2) return "needs AVX2 and FMA";
  if (feature == &Machine::has_avx512) return "needs AVX-512 (F, BW, DQ, VL)";
  return "needs AVX-512 with BF16";
}

template <bool Machine::*feature, Dtypes dtypes>
std::string refusal(const BlockAttentionParams& params) {
  if (!(machine().*feature)) return missing(feature);
  if (dtypes == Dtypes::kBFloat16Only && params.dtype != ScalarType::kBFloat16) return "has bf16 only";
  if (params.head_dim > kMaxHeadDim) {
    return "head width " + std::to_string(params.head_dim) + ", has up to " + std::to_string(kMaxHeadDim);
  }
  return "";
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
