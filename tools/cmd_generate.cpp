// strobe generate: a prompt to a video.
#include <random>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

struct GenerateOptions {
  CommonOptions common;
  pipelines::Request request;
  std::string size;
  int64_t seed = 0;
  std::vector<std::string> loras;
};

void add_clip_options(CLI::App& app, GenerateOptions& o) {
  pipelines::Request& r = o.request;
  app.add_option("-p,--prompt", r.prompt, "what the clip shows")->required()->group("Clip");
  app.add_option("-n,--negative-prompt", r.negative_prompt, "what it should not show (default: the model's)")
      ->group("Clip");
  add_size_options(app, r, o.size);
  app.add_option("-s,--seed", o.seed, "-1 draws one and prints it")->capture_default_str()->group("Clip");
}

void print_summary(const pipelines::Job& job, const pipelines::Result& result) {
  const auto& t = result.times;
  for (const attention::AttentionRow& row : result.attention) {
    log_debug("{} attention: {} by {}, {} calls, density {:.3f}, {:.1f} s{}", row.kind, row.pattern, row.backend,
              row.calls, row.density(), row.milliseconds / 1e3, row.note.empty() ? "" : " (" + row.note + ")");
  }
  log_debug("frames sha256 {}", result.frame_sha256);
  log_debug("times: load {:.1f}ms text {:.1f}ms denoise {:.1f}ms decode {:.1f}ms encode {:.1f}ms", t.load_ms, t.text_ms,
            t.denoise_ms, t.decode_ms, t.encode_ms);
  log_info(
      "{}: {} frames {}x{}, {}; {:.1f} s (load {:.1f}, text {:.1f}, denoise {:.1f}, decode {:.1f}, encode {:.1f}), "
      "peak {:.2f} GiB",
      job.request.output.string(), result.frames, job.width, job.height, result.encoder, t.total_ms / 1e3,
      t.load_ms / 1e3, t.text_ms / 1e3, t.denoise_ms / 1e3, t.decode_ms / 1e3, t.encode_ms / 1e3,
      static_cast<double>(result.peak_memory_bytes) / (1 << 30));
}

int run_generate(GenerateOptions& o) {
  apply_common_options(o.common);
  pipelines::Request& request = o.request;
  for (const std::string& text : o.loras) request.loras.push_back(pipelines::parse_lora(text));
  if (!o.size.empty()) parse_size(o.size, request);
  if (o.seed < -1) throw ConfigError(fmt::format("--seed {}: expected a number from 0, or -1", o.seed));
  const bool is_drawn = o.seed == -1;
  if (is_drawn) o.seed = static_cast<int64_t>(std::random_device{}() & 0x7fffffffU);
  request.seed = static_cast<uint64_t>(o.seed);
  if (request.output.empty()) {
    request.output =
        fmt::format("{}_{}{}", pipelines::slug(request.prompt), request.seed, request.is_lossless ? ".mkv" : ".mp4");
  }
  ProgressLine line(o.common.is_quiet);
  // A drawn seed is all there is to make the clip again: said even when quiet.
  if (is_drawn) log_message(LogLevel::kInfo, fmt::format("seed {}", request.seed));
  pipelines::Pipeline pipeline = open_pipeline(o.common);
  const pipelines::Job job = pipelines::resolve(request, pipeline.info());
  for (const std::string& text : job.adjustments) log_warning("{}", text);
  if (request.negative_prompt && !request.negative_prompt->empty() && job.guidance_scale <= 1) {
    log_warning("the negative prompt has no effect: guidance {} is 1 or less", job.guidance_scale);
  }
  log_info("{}: {} frames {}x{}, {} steps of {}, guidance {}, shift {}, seed {}", pipeline.info().name, job.num_frames,
           job.width, job.height, job.num_inference_steps, job.scheduler, job.guidance_scale, job.flow_shift,
           request.seed);
  const pipelines::Result result = pipeline.generate(job, line.callbacks());
  line.finish();
  print_summary(job, result);
  return 0;
}

}  // namespace

std::function<int()> add_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  add_clip_options(app, *options);
  app.add_option("-o,--output", options->request.output,
                 "FILE.mp4, .mkv, .webm, .avi; FRAMES/ or f_{frame:05}.png (default: from prompt and seed)")
      ->group("Output");
  app.add_option("--save-latents", options->request.save_latents, "final latents (safetensors)")->group("Output");
  add_output_options(app, options->request);
  add_sampling_options(app, options->request);
  app.add_option("--init-latents", options->request.init_latents, "start noise from a latents file")->group("Sampling");
  app.add_option("--lora", options->loras, "FILE[:WEIGHT]: a LoRA merged into the weights; repeatable")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group("Model");
  add_common_options(app, options->common);
  return [options] { return run_generate(*options); };
}

}  // namespace strobe::tools
