#include "attention/kernel_scorer.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/kernel_call.h"
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "kernels/block_attention/block_attention.h"
#include "kernels/block_score/block_score.h"

namespace strobe::attention {
namespace {

double scale_of(const ScoreInput& input) {
  return input.scale != 0 ? input.scale : 1.0 / std::sqrt(static_cast<double>(input.q.size(3)));
}

// The reference kernels are slower than LibTorch's products by orders of magnitude.
bool is_reference(const std::string& name) { return name.ends_with("_reference"); }

const kernels::BlockScoreKernel* find_score_kernel(const ScoreInput& input) {
  const kernels::ScalarType dtype = kernel_dtype(input.q);
  for (const kernels::BlockScoreKernel& kernel : kernels::block_score_kernels()) {
    if (is_reference(kernel.name)) continue;
    if (kernel.refusal(dtype, static_cast<int32_t>(input.q.size(3))).empty()) return &kernel;
  }
  return nullptr;
}

// What mass and attention have in common.
template <class Params>
Params shape_of(const ScoreInput& input) {
  Params params;
  params.dtype = kernel_dtype(input.q);
  params.batch = static_cast<int32_t>(input.q.size(0));
  params.heads = static_cast<int32_t>(input.q.size(1));
  params.key_heads = static_cast<int32_t>(input.k.size(1));
  params.query_tokens = static_cast<int32_t>(input.q.size(2));
  params.key_tokens = static_cast<int32_t>(input.k.size(2));
  params.head_dim = static_cast<int32_t>(input.q.size(3));
  params.scale = scale_of(input);
  params.parallel = torch_parallel();
  return params;
}

const float* bias_of(const ScoreInput& input, at::Tensor& holder) {
  if (!input.key_bias.defined()) return nullptr;
  holder = input.key_bias.contiguous();
  return holder.data_ptr<float>();
}

bool takes_kernels(const ScoreInput& input) {
  const at::ScalarType dtype = input.q.scalar_type();
  return input.q.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16);
}

class KernelScorer final : public Scorer {
 public:
  std::string name() const override {
    for (const kernels::BlockScoreKernel& kernel : kernels::block_score_kernels()) {
      if (!is_reference(kernel.name) && kernel.refusal(kernels::ScalarType::kFloat32, 128).empty()) return kernel.name;
    }
    return torch_.name();
  }

  at::Tensor row_lse(const ScoreInput& input) const override {
    if (takes_kernels(input)) {
      auto params = shape_of<kernels::BlockAttentionParams>(input);
      for (const kernels::BlockAttentionKernel& kernel : kernels::block_attention_kernels()) {
        if (is_reference(kernel.name) || !kernel.refusal(params).empty()) continue;
        at::Tensor q, k, bias;
        params.q = kernel_view(input.q, q);
        params.k = kernel_view(input.k, k);
        params.key_bias = bias_of(input, bias);
        at::Tensor lse = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
        params.lse = lse.data_ptr<float>();
        kernel.run(params);
        return lse;
      }
    }
    return torch_.row_lse(input);
  }

  BlockMass block_mass(const ScoreInput& input, const at::Tensor& lse, const std::vector<int32_t>& query_offsets,
                       const std::vector<int32_t>& key_offsets, bool wants_row_sum) const override {
    const kernels::BlockScoreKernel* kernel = takes_kernels(input) ? find_score_kernel(input) : nullptr;
    if (!kernel) return torch_.block_mass(input, lse, query_offsets, key_offsets, wants_row_sum);
    STROBE_CHECK(query_offsets.back() == input.q.size(2) && key_offsets.back() == input.k.size(2),
                 "block mass: offsets end at {} and {}, tensors at {} and {}", query_offsets.back(), key_offsets.back(),
                 input.q.size(2), input.k.size(2));
    auto params = shape_of<kernels::BlockMassParams>(input);
    at::Tensor q, k, bias;
    const at::Tensor own_lse = lse.contiguous();
    params.q = kernel_view(input.q, q);
    params.k = kernel_view(input.k, k);
    params.key_bias = bias_of(input, bias);
    params.lse = own_lse.data_ptr<float>();
    params.query_blocks = static_cast<int32_t>(query_offsets.size()) - 1;
    params.key_blocks = static_cast<int32_t>(key_offsets.size()) - 1;
    params.query_offsets = query_offsets.data();
    params.key_offsets = key_offsets.data();
    const auto options = q.options().dtype(at::kFloat);
    BlockMass result{.mass = at::empty({q.size(0), q.size(1), params.query_blocks, params.key_blocks}, options),
                     .row_sum = {}};
    params.mass = result.mass.data_ptr<float>();
    if (wants_row_sum) {
      result.row_sum = at::empty({q.size(0), q.size(1), q.size(2)}, options);
      params.row_sum = result.row_sum.data_ptr<float>();
    }
    kernel->mass(params);
    return result;
  }

  at::Tensor block_importance(const ScoreInput& input, const BlockSamples& queries, const BlockSamples& keys,
                              bool is_softmax) const override {
    const kernels::BlockScoreKernel* kernel = takes_kernels(input) ? find_score_kernel(input) : nullptr;
    if (!kernel) return torch_.block_importance(input, queries, keys, is_softmax);
    STROBE_CHECK(input.q.size(0) == 1 && input.k.size(1) == input.q.size(1),
                 "block importance: {} batch rows, {} heads of q, {} of k", input.q.size(0), input.q.size(1),
                 input.k.size(1));
    at::Tensor q, k, bias;
    const at::Tensor query_tokens = queries.tokens.contiguous(), key_tokens = keys.tokens.contiguous();
    kernels::BlockImportanceParams params;
    params.dtype = kernel_dtype(input.q);
    params.heads = static_cast<int32_t>(input.q.size(1));
    params.head_dim = static_cast<int32_t>(input.q.size(3));
    params.q = kernel_view(input.q, q);
    params.k = kernel_view(input.k, k);
    params.scale = scale_of(input);
    params.key_bias = bias_of(input, bias);
    params.query_samples = static_cast<int32_t>(queries.count);
    params.key_samples = static_cast<int32_t>(keys.count);
    params.query_blocks = static_cast<int32_t>(query_tokens.size(1) / queries.count);
    params.key_blocks = static_cast<int32_t>(key_tokens.size(1) / keys.count);
    params.query_tokens = query_tokens.const_data_ptr<int32_t>();
    params.key_tokens = key_tokens.const_data_ptr<int32_t>();
    params.is_softmax = is_softmax;
    params.parallel = torch_parallel();
    at::Tensor importance = at::empty({params.heads, params.query_blocks, params.key_blocks}, at::kFloat);
    params.importance = importance.mutable_data_ptr<float>();
    kernel->importance(params);
    return importance;
  }

 private:
  TorchScorer torch_;
};

}  // namespace

std::unique_ptr<Scorer> make_scorer() { return std::make_unique<KernelScorer>(); }

}  // namespace strobe::attention
