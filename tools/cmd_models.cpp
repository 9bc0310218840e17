// strobe models: what is here, what is known, and random checkpoints of it.
#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include <cstdio>

#include "core/error.h"
#include "core/log.h"
#include "tools/app.h"
#include "tools/progress_line.h"

namespace strobe::tools {
namespace {

constexpr const char* kZeroNote = "zero weights: clips show nothing; for plans and tests of size";

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

std::string count_text(int64_t count) {
  return count < 1'000'000'000 ? millions(count) : fmt::format("{:.2f} G", static_cast<double>(count) / 1e9);
}

void print_known() {
  print(
      "\n"
      "known architectures, without weights (plan, models make-random)\n");
  print(fmt::format("  {:<16} {:>12} {:>13} {:>10}  {}\n", "", "transformer", "text encoder", "VAE", "default clip"));
  for (const std::string& name : models::known_model_names()) {
    const auto model = models::family_of_known(name)->open_known(name);
    const models::ModelInfo& i = model->info();
    print(fmt::format("  {:<16} {:>12} {:>13} {:>10}  {}x{}x{}\n", name,
                      (i.stages == 2 ? "2 x " : "") + count_text(i.dit_parameters),
                      count_text(i.text_encoder_parameters), count_text(i.vae_parameters), i.defaults.num_frames,
                      i.defaults.height, i.defaults.width));
  }
}

std::optional<at::ScalarType> stored_dtype(const ConfigNode& effective) {
  const std::string name = effective.get_string("dtype", "");
  if (name.empty()) return std::nullopt;
  return name == "fp32" ? at::kFloat : name == "bf16" ? at::kBFloat16 : at::kHalf;
}

}  // namespace

int run_models(const Invocation& invocation) {
  const std::vector<std::string>& folders = invocation.positionals.at("FOLDER");
  if (folders.empty()) {
    print_model("tiny-random (default)", default_model_folder());
    print_known();
  }
  for (const std::string& folder : folders) print_model(std::filesystem::path(folder).filename().string(), folder);
  return 0;
}

int run_make_random(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_talk(effective);
  const std::string like = effective.get_string("like", ""), folder = invocation.positional("DIR");
  const bool is_zero = effective.get_bool("zeros", false);
  const auto family = models::family_of_known(like);
  const models::CheckpointFiles files = family->known_files(like, is_zero ? kZeroNote : kRandomNote);
  ProgressLine line(effective.get_bool("quiet", false));
  const models::RandomCheckpointOptions options = {
      .seed = static_cast<uint64_t>(effective.get_integer("seed", 0)),
      .is_zero = is_zero,
      .dtype = stored_dtype(effective),
      .is_interrupted = [] { return is_interrupted(); },
      .on_bytes = [&](uint64_t written, uint64_t total) { line.show_bytes("write", written, total); }};
  models::write_random_checkpoint(folder, files, options);
  line.finish();
  log_info("{}: {} of {}, {:.2f} GB{}", folder, is_zero ? "zero weights" : "random weights", like,
           static_cast<double>(models::checkpoint_bytes(files, options.dtype)) / 1e9,
           is_zero ? ", as holes that take no space" : "");
  return 0;
}

}  // namespace strobe::tools
