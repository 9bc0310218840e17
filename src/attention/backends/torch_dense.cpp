// LibTorch's scaled_dot_product_attention; its CPU flash kernel returns the row log-sum-exp too.
#include "core/torch.h"
// After the precompiled header.
#include "attention/backend.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

class TorchDenseBackend final : public AttentionBackend {
 public:
  std::string name() const override { return "torch_dense"; }

  std::string refusal(const AttentionProblem& problem) const override {
    if (problem.layout) return "dense attention only";
    if (problem.k.size(1) != problem.q.size(1)) return "as many key heads as query heads only";
    if (!problem.wants_lse) return {};
    if (!problem.q.is_cpu()) return "row log-sum-exp only on the CPU";
    return problem.key_bias.defined() ? "row log-sum-exp not together with a key bias" : "";
  }

  void run(const AttentionProblem& problem, AttentionOutput& output) const override {
    at::Tensor out;
    if (problem.wants_lse) {
      std::tie(out, output.lse) = at::_scaled_dot_product_flash_attention_for_cpu(problem.q, problem.k, problem.v, 0.0,
                                                                                  false, {}, problem.scale);
    } else {
      std::optional<at::Tensor> mask;
      if (problem.key_bias.defined()) {
        const int64_t batch = problem.key_bias.size(0), keys = problem.key_bias.size(1);
        mask = problem.key_bias.to(problem.q.scalar_type()).view({batch, 1, 1, keys});
      }
      out = at::scaled_dot_product_attention(problem.q, problem.k, problem.v, mask, 0.0, false, problem.scale);
    }
    if (output.out.defined()) {
      output.out.copy_(out);
    } else {
      output.out = out;
    }
  }
};

}  // namespace

BackendList make_torch_dense_backends() {
  BackendList backends;
  backends.push_back(std::make_unique<TorchDenseBackend>());
  return backends;
}

}  // namespace strobe::attention
