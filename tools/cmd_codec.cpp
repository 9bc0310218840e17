// strobe decode and strobe encode: the VAE alone.
#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "pipelines/latents_file.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

struct CodecOptions {
  CommonOptions common;
  pipelines::Request request;
  std::filesystem::path input;
  std::filesystem::path output;
};

int run_decode(CodecOptions& o) {
  apply_common_options(o.common);
  ProgressLine line(o.common.is_quiet);
  const at::Tensor latents = pipelines::load_latents(o.input);
  pipelines::Pipeline pipeline = open_pipeline(o.common);
  const models::ModelInfo& info = pipeline.info();
  const int64_t fps = o.request.fps.value_or(info.defaults.fps);
  o.request.output = o.output;
  pipelines::check_output(o.output,
                          pipelines::video_options(o.request, latents.size(3) * info.spatial_stride,
                                                   latents.size(4) * info.spatial_stride, fps),
                          o.request.may_overwrite);
  const pipelines::Result result = pipeline.decode(latents, o.request, fps, line.callbacks());
  line.finish();
  log_info("{}: {} frames, {}; {:.1f} s, peak {:.2f} GiB", o.output.string(), result.frames, result.encoder,
           result.times.total_ms / 1e3, static_cast<double>(result.peak_memory_bytes) / (1 << 30));
  return 0;
}

int run_encode(CodecOptions& o) {
  apply_common_options(o.common);
  pipelines::check_output_file(o.output, o.request.may_overwrite);
  ProgressLine line(o.common.is_quiet);
  pipelines::Pipeline pipeline = open_pipeline(o.common);
  const at::Tensor latents = pipeline.encode(o.input, o.request, line.callbacks());
  line.finish();
  pipelines::save_latents(o.output, latents,
                          {{"model", pipeline.info().name}, {"source", o.input.filename().string()}});
  log_info("{}: latents {} x {} x {} x {}", o.output.string(), latents.size(1), latents.size(2), latents.size(3),
           latents.size(4));
  return 0;
}

}  // namespace

std::function<int()> add_decode(CLI::App& app) {
  auto options = std::make_shared<CodecOptions>();
  app.add_option("LATENTS", options->input, "latents file (safetensors)")->required();
  app.add_option("-o,--output", options->output, "video file or frames folder")->required()->group("Output");
  add_output_options(app, options->request);
  add_common_options(app, options->common);
  return [options] { return run_decode(*options); };
}

std::function<int()> add_encode(CLI::App& app) {
  auto options = std::make_shared<CodecOptions>();
  pipelines::Request& r = options->request;
  app.add_option("VIDEO", options->input, "any video file that FFmpeg reads, or a folder of images")->required();
  app.add_option("-o,--output", options->output, "latents file (safetensors)")->required()->group("Output");
  app.add_flag("--overwrite", r.may_overwrite, "replace outputs that exist")->group("Output");
  app.add_option("--num-frames", r.num_frames, "at most this many frames (default: all)")
      ->check(CLI::PositiveNumber)
      ->group("Clip");
  app.add_option("--height", r.height, "resize to this height (default: the video's, rounded)")->group("Clip");
  app.add_option("--width", r.width, "resize to this width (default: the video's, rounded)")->group("Clip");
  app.add_flag("--strict", r.is_strict, "refuse sizes that would be rounded")->group("Clip");
  app.add_flag("--vae-tiling", r.uses_vae_tiling, "encode in tiles of 256 px")->group("Model");
  add_common_options(app, options->common);
  return [options] { return run_encode(*options); };
}

}  // namespace strobe::tools
