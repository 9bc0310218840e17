// strobe doctor: this machine and what serves it.
#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include <cstdio>

#include "attention/backend.h"
#include "attention/kernel_call.h"
#include "attention/pattern.h"
#include "core/error.h"
#include "kernels/block_attention/cases.h"
#include "kernels/block_score/cases.h"
#include "kernels/common/machine.h"
#include "sampling/guider.h"
#include "sampling/sampler.h"
#include "tools/app.h"
#include "video/video_writer.h"

namespace strobe::tools {
namespace {

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

std::string yes_no(bool value) { return value ? "yes" : "no"; }

// Which kernel would serve which problem, and why the better ones would not.
void print_service() {
  const auto backends = attention::make_backends("auto");
  struct Problem {
    const char* name;
    at::ScalarType dtype;
    int64_t width;
    bool is_sparse;
  };
  const Problem problems[] = {
      {"dense fp32, heads of 128", at::kFloat, 128, false},    {"blocks fp32, heads of 128", at::kFloat, 128, true},
      {"blocks fp32, heads of 64", at::kFloat, 64, true},      {"blocks fp32, heads of 96", at::kFloat, 96, true},
      {"dense bf16, heads of 128", at::kBFloat16, 128, false}, {"blocks bf16, heads of 128", at::kBFloat16, 128, true}};
  const BlockLayout layout = BlockLayout::full({0, 64}, {0, 64});
  print("attention problem          kernel (passed over, with the reason)\n");
  for (const Problem& p : problems) {
    const at::Tensor q = at::zeros({1, 1, 64, p.width}, p.dtype);
    const attention::AttentionProblem problem{
        .q = q, .k = q, .v = q, .scale = 1, .layout = p.is_sparse ? &layout : nullptr};
    std::string kernel = "none", reasons;
    for (const auto& backend : backends) {
      const std::string refusal = backend->refusal(problem);
      if (refusal.empty()) {
        kernel = backend->name();
        break;
      }
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", backend->name(), refusal);
    }
    print(fmt::format("  {:<25} {}{}\n", p.name, kernel, reasons.empty() ? "" : " (" + reasons + ")"));
  }
}

struct SelfTest {
  int passed = 0, failed = 0, skipped = 0;
  std::string first_failure, reason;

  void add(const std::string& name, const std::string& skip, const std::string& failure) {
    if (!skip.empty()) {
      ++skipped;
      reason = skip;
    } else if (failure.empty()) {
      ++passed;
    } else {
      ++failed;
      if (first_failure.empty()) first_failure = name + ": " + failure;
    }
  }
  void print_line(const std::string& kernel) const {
    print(fmt::format("  {:<32} {:>4} passed {:>3} failed {:>4} skipped{}{}\n", kernel, passed, failed, skipped,
                      reason.empty() ? "" : ": " + reason, first_failure.empty() ? "" : "; " + first_failure));
  }
};

// Every kernel by forced name against float64. Returns how many cases failed.
int self_test() {
  constexpr int32_t kMaxTokens = 600;  // larger cases are strobe_kernel_check's
  constexpr double kBudget = 2e6;      // multiply-adds of a case's reference
  print("self-test, every kernel by forced name against float64\n");
  int failed = 0;
  const auto cases = kernels::attention_cases();
  for (const kernels::BlockAttentionKernel& kernel : kernels::block_attention_kernels()) {
    SelfTest test;
    for (const kernels::AttentionCase& one : cases) {
      if (one.query_tokens > kMaxTokens || one.key_tokens > kMaxTokens) continue;
      const auto result = kernels::run_attention_case(kernel, one, attention::torch_parallel(), kBudget);
      test.add(one.name, result.skipped, result.failure);
    }
    test.print_line(kernel.name);
    failed += test.failed;
  }
  for (const kernels::BlockScoreKernel& kernel : kernels::block_score_kernels()) {
    SelfTest test;
    for (const kernels::ScoreCase& one : kernels::score_cases()) {
      const auto result = kernels::run_score_case(kernel, one, attention::torch_parallel());
      test.add(one.name, result.skipped, result.failure);
    }
    test.print_line(kernel.name);
    failed += test.failed;
  }
  print(failed == 0 ? "all passed\n" : fmt::format("{} failed\n", failed));
  return failed;
}

}  // namespace

int run_doctor(const Invocation& invocation) {
  const kernels::Machine& m = kernels::machine();
  print(version_text());
  print(fmt::format("\nCPU           {}, {} processors\n", m.cpu_name, m.cores));
  print(fmt::format("  AVX2+FMA {}, AVX-512 {}, AVX512-BF16 {}, AMX-BF16 {}{}\n", yes_no(m.has_avx2),
                    yes_no(m.has_avx512), yes_no(m.has_avx512_bf16), yes_no(m.has_amx_bf16),
                    m.masked.empty() ? "" : fmt::format(" (masked by STROBE_MACHINE: {})", fmt::join(m.masked, ", "))));
  print(fmt::format("  LibTorch runs its {} kernels\n", at::get_cpu_capability()));
  print("  --dtype bf16  " + std::string(m.has_fast_bf16() ? "usable" : "refused: no AVX512-BF16 or AMX") + "\n");
#ifdef STROBE_HAS_CUDA
  print(fmt::format("GPUs          {}\n", at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0));
#else
  print("GPUs          none: this build has no CUDA\n");
#endif
  print(fmt::format("attention     methods: {}; kernels, best first: {}\n", fmt::join(attention::pattern_names(), ", "),
                    fmt::join(attention::backend_names(), ", ")));
  print_service();
  print(fmt::format("sampling      schedulers: {}; guidance: {}\n", fmt::join(sampling::sampler_names(), ", "),
                    fmt::join(sampling::guider_names(), ", ")));
  print(fmt::format("model family  {}\n", fmt::join(models::family_names(), ", ")));
  print("encoders\n");
  for (const char* extension : {".mp4", ".mkv", ".webm", ".avi"}) {
    print(fmt::format("  {:<6} {}\n", extension,
                      fmt::join(video::available_encoders(std::string("x") + extension), " ")));
  }
  const std::filesystem::path model = default_model_path();
  std::error_code error;
  print(fmt::format("default model {} ({})\n", model.string(),
                    std::filesystem::exists(model / "model_index.json", error) ? "made" : "made on first use"));
  if (!invocation.effective().get_bool("self_test", false)) return 0;
  print("\n");
  return self_test() == 0 ? 0 : 1;
}

}  // namespace strobe::tools
