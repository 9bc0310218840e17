// Our block attention kernels, one backend a kernel, best first.
#include "core/torch.h"
// After the precompiled header.
#include "attention/backends/cpu_kernels.h"
#include "attention/kernel_call.h"
#include "core/error.h"
#include "kernels/block_attention/block_attention.h"

namespace strobe::attention {
namespace {

constexpr const char* kReference = "block_attention_reference";

class CpuBackend final : public AttentionBackend {
 public:
  explicit CpuBackend(const kernels::BlockAttentionKernel& kernel) : kernel_(kernel) {}

  std::string name() const override { return kernel_.name; }

  std::string refusal(const AttentionProblem& problem) const override {
    if (!problem.q.is_cpu()) return "tensors on the CPU only";
    if (problem.q.scalar_type() != at::kFloat && problem.q.scalar_type() != at::kBFloat16) {
      return "float32 and bfloat16 only";
    }
    if (at::GradMode::is_enabled() && (problem.q.requires_grad() || problem.k.requires_grad())) return "forward only";
    return kernel_.refusal(shape_of(problem));
  }

  void run(const AttentionProblem& problem, AttentionOutput& output) const override {
    kernels::BlockAttentionParams params = shape_of(problem);
    at::Tensor q, k, v, bias;
    params.q = kernel_view(problem.q, q);
    params.k = kernel_view(problem.k, k);
    params.v = kernel_view(problem.v, v);
    if (!output.out.defined()) {
      // Tokens before heads: what models join heads from.
      output.out =
          at::empty({problem.q.size(0), problem.q.size(2), problem.q.size(1), problem.q.size(3)}, problem.q.options())
              .transpose(1, 2);
    }
    STROBE_CHECK(output.out.stride(3) == 1, "attention: out is not contiguous in its last axis");
    params.out = {.data = output.out.data_ptr(),
                  .batch_stride = output.out.stride(0),
                  .head_stride = output.out.stride(1),
                  .token_stride = output.out.stride(2)};
    if (problem.wants_lse) {
      output.lse =
          at::empty({problem.q.size(0), problem.q.size(1), problem.q.size(2)}, problem.q.options().dtype(at::kFloat));
      params.lse = output.lse.data_ptr<float>();
    }
    kernels::BlockLayoutView layout;
    if (problem.layout) {
      layout = problem.layout->view();
      params.layout = &layout;
    }
    if (problem.orders.q) params.query_order = problem.orders.q->raster().data();
    if (problem.orders.k) params.key_order = problem.orders.k->raster().data();
    if (problem.key_bias.defined()) {
      bias = problem.key_bias.contiguous();
      params.key_bias = bias.data_ptr<float>();
    }
    params.parallel = torch_parallel();
    kernel_.run(params);
  }

 private:
  static kernels::BlockAttentionParams shape_of(const AttentionProblem& problem) {
    return {.dtype = kernel_dtype(problem.q),
            .batch = static_cast<int32_t>(problem.q.size(0)),
            .heads = static_cast<int32_t>(problem.q.size(1)),
            .key_heads = static_cast<int32_t>(problem.k.size(1)),
            .query_tokens = static_cast<int32_t>(problem.q.size(2)),
            .key_tokens = static_cast<int32_t>(problem.k.size(2)),
            .head_dim = static_cast<int32_t>(problem.q.size(3)),
            .scale = problem.scale,
            .has_multiplicity_bias = problem.pooling.has_multiplicity_bias,
            .replicates_tail = problem.pooling.replicates_tail,
            .replicated_size = static_cast<int32_t>(problem.pooling.replicated_size)};
  }

  kernels::BlockAttentionKernel kernel_;
};

}  // namespace

BackendList make_cpu_kernels(bool is_reference) {
  BackendList backends;
  for (const kernels::BlockAttentionKernel& kernel : kernels::block_attention_kernels()) {
    if ((std::string(kernel.name) == kReference) == is_reference) {
      backends.push_back(std::make_unique<CpuBackend>(kernel));
    }
  }
  return backends;
}

BackendList make_cpu_backends() { return make_cpu_kernels(/*is_reference=*/false); }

}  // namespace strobe::attention
