// strobe models and strobe doctor: what is here.
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

std::string millions(int64_t count) { return fmt::format("{:.1f} M", static_cast<double>(count) / 1e6); }

void print_model(const std::string& name, const std::filesystem::path& folder) {
  const auto model = models::open_model_folder(folder);
  const models::ModelInfo& i = model->info();
  print(fmt::format("{}\n  folder        {}\n  family        {}, {} expert{}\n", name, folder.string(), i.family,
                    i.stages, i.stages == 1 ? "" : "s"));
  print(fmt::format("  parameters    transformer {}, text encoder {}, VAE {}\n", millions(i.dit_parameters),
                    millions(i.text_encoder_parameters), millions(i.vae_parameters)));
  print(fmt::format("  defaults      {} frames {}x{} at {} fps, {} steps of {}, guidance {}, shift {}\n",
                    i.defaults.num_frames, i.defaults.width, i.defaults.height, i.defaults.fps,
                    i.defaults.num_inference_steps, i.defaults.scheduler, i.defaults.guidance_scale,
                    i.defaults.flow_shift));
  if (!i.note.empty()) print(fmt::format("  note          {}\n", i.note));
}

int run_models(const std::vector<std::string>& folders) {
  if (folders.empty()) print_model("tiny-random (default)", default_model_folder());
  for (const std::string& folder : folders) print_model(std::filesystem::path(folder).filename().string(), folder);
  return 0;
}

std::string yes_no(bool value) { return value ? "yes" : "no"; }

int run_doctor() {
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

}  // namespace

std::function<int()> add_models(CLI::App& app) {
  auto folders = std::make_shared<std::vector<std::string>>();
  app.add_option("FOLDER", *folders, "model folders to describe (default: the bundled ones)");
  return [folders] { return run_models(*folders); };
}

std::function<int()> add_doctor(CLI::App&) {
  return [] { return run_doctor(); };
}

}  // namespace strobe::tools
