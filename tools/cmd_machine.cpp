// strobe doctor: this machine and what serves it.
#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include <cstdio>

#include "attention/backend.h"
#include "attention/pattern.h"
#include "core/error.h"
#include "kernels/common/machine.h"
#include "sampling/guider.h"
#include "sampling/sampler.h"
#include "tools/app.h"
#include "video/video_writer.h"

namespace strobe::tools {
namespace {

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

std::string yes_no(bool value) { return value ? "yes" : "no"; }

}  // namespace

int run_doctor(const Invocation&) {
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
  return 0;
}

}  // namespace strobe::tools
