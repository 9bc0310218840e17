// strobe decode and strobe encode: the VAE alone.
#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "pipelines/latents_file.h"
#include "tools/app.h"
#include "tools/progress_line.h"

namespace strobe::tools {

int run_decode(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const pipelines::Request request = pipelines::to_request(effective);
  ProgressLine line(effective.get_bool("quiet", false));
  const at::Tensor latents = pipelines::load_latents(invocation.positional("LATENTS"));
  pipelines::Pipeline pipeline = open_pipeline(effective);
  const models::ModelInfo& info = pipeline.info();
  const int64_t fps = request.fps.value_or(info.defaults.fps);
  pipelines::check_output(request.output,
                          pipelines::video_options(request, latents.size(3) * info.spatial_stride,
                                                   latents.size(4) * info.spatial_stride, fps),
                          request.may_overwrite);
  const pipelines::Result result = pipeline.decode(latents, request, fps, line.callbacks());
  line.finish();
  log_info("{}: {} frames, {}; {:.1f} s, peak {:.2f} GiB", request.output.string(), result.frames, result.encoder,
           result.times.total_ms / 1e3, static_cast<double>(result.peak_memory_bytes) / (1 << 30));
  return 0;
}

int run_encode(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const pipelines::Request request = pipelines::to_request(effective);
  const std::filesystem::path input = invocation.positional("VIDEO");
  pipelines::check_output_file(request.output, request.may_overwrite);
  ProgressLine line(effective.get_bool("quiet", false));
  pipelines::Pipeline pipeline = open_pipeline(effective);
  const at::Tensor latents = pipeline.encode(input, request, line.callbacks());
  line.finish();
  pipelines::save_latents(request.output, latents,
                          {{"model", pipeline.info().name}, {"source", input.filename().string()}});
  log_info("{}: latents {} x {} x {} x {}", request.output.string(), latents.size(1), latents.size(2), latents.size(3),
           latents.size(4));
  return 0;
}

}  // namespace strobe::tools
