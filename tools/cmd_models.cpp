// strobe models: what is here, what is known, and random checkpoints of it.
#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include <cstdio>

#include "core/error.h"
#include "core/log.h"
#include "core/nearest.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

constexpr const char* kZeroNote = "zero weights: clips show nothing; for plans and tests of size";

struct MakeRandomOptions {
  std::string folder, like, dtype;
  uint64_t seed = 0;
  bool is_zero = false;
};

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

int run_models(const std::vector<std::string>& folders) {
  if (folders.empty()) {
    print_model("tiny-random (default)", default_model_folder());
    print_known();
  }
  for (const std::string& folder : folders) print_model(std::filesystem::path(folder).filename().string(), folder);
  return 0;
}

std::optional<at::ScalarType> parse_stored_dtype(const std::string& name) {
  if (name.empty()) return std::nullopt;
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp16") return at::kHalf;
  throw ConfigError("--dtype: " + unknown_name_message("dtype", name, {"fp32", "bf16", "fp16"}));
}

int run_make_random(const MakeRandomOptions& o) {
  if (o.seed >> 48 != 0) throw ConfigError(fmt::format("--seed {}: expected a number below 2^48", o.seed));
  const auto family = models::family_of_known(o.like);
  const models::CheckpointFiles files = family->known_files(o.like, o.is_zero ? kZeroNote : kRandomNote);
  ProgressLine line(/*is_quiet=*/false);
  const models::RandomCheckpointOptions options = {
      .seed = o.seed,
      .is_zero = o.is_zero,
      .dtype = parse_stored_dtype(o.dtype),
      .is_interrupted = [] { return is_interrupted(); },
      .on_bytes = [&](uint64_t written, uint64_t total) { line.show_bytes("write", written, total); }};
  models::write_random_checkpoint(o.folder, files, options);
  line.finish();
  log_info("{}: {} of {}, {:.2f} GB{}", o.folder, o.is_zero ? "zero weights" : "random weights", o.like,
           static_cast<double>(models::checkpoint_bytes(files, options.dtype)) / 1e9,
           o.is_zero ? ", as holes that take no space" : "");
  return 0;
}

}  // namespace

std::function<int()> add_models(CLI::App& app) {
  auto folders = std::make_shared<std::vector<std::string>>();
  app.add_option("FOLDER", *folders, "model folders to describe (default: the bundled ones and what is known)");
  auto random = std::make_shared<MakeRandomOptions>();
  CLI::App* make = app.add_subcommand("make-random", "a complete checkpoint of a known size with random weights");
  make->allow_extras();
  make->set_help_flag("-h,--help", "this text");
  make->add_option("DIR", random->folder, "folder to make; must not exist or be empty")->required();
  make->add_option("--like", random->like,
                   "architecture: " + fmt::format("{}", fmt::join(models::known_model_names(), ", ")))
      ->required();
  make->add_flag("--zeros", random->is_zero, "zeros instead, as holes: no time and no disk space");
  make->add_option("-s,--seed", random->seed, "of the values")->capture_default_str();
  make->add_option("--dtype", random->dtype, "fp32, bf16 or fp16 for all weights (default: as published)");
  return [folders, random, make] { return make->parsed() ? run_make_random(*random) : run_models(*folders); };
}

}  // namespace strobe::tools
