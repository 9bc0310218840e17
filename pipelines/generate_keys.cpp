#include "pipelines/generate_keys.h"

#include "core/error.h"
#include "sampling/sampler.h"

namespace strobe::pipelines {
namespace {

using config::KeySpec;
using config::KeyType;

std::vector<KeySpec> prompt_keys() {
  return {
      {.name = "prompt",
       .sentence = "what the clip shows",
       .group = "Clip",
       .flags = "-p,--prompt",
       .default_note = "must be given",
       .is_list = true,
       .is_per_job = true},
      {.name = "prompt_file",
       .type = KeyType::kPath,
       .sentence = "prompts from a .txt, .jsonl, .csv, .yaml or VBench .json file",
       .group = "Clip",
       .flags = "-f,--prompt-file"},
      {.name = "start",
       .type = KeyType::kInteger,
       .sentence = "first prompt of the file to make, from 0",
       .group = "Clip",
       .flags = "--start",
       .unit = "prompts",
       .minimum = 0,
       .default_text = "0"},
      {.name = "limit",
       .type = KeyType::kInteger,
       .sentence = "at most this many prompts of the file",
       .group = "Clip",
       .flags = "--limit",
       .unit = "prompts",
       .minimum = 1,
       .default_note = "all"},
      {.name = "shard",
       .sentence = "i/n: every n-th of the selected prompts, from the i-th on, i from 0",
       .group = "Clip",
       .flags = "--shard",
       .default_note = "all"},
      {.name = "num_videos",
       .type = KeyType::kInteger,
       .sentence = "clips of each prompt, with seeds N, N+1 ...",
       .group = "Clip",
       .flags = "--num-videos",
       .unit = "clips",
       .minimum = 1,
       .maximum = 100000,
       .default_text = "1"},
      {.name = "negative_prompt",
       .sentence = "what it should not show",
       .group = "Clip",
       .flags = "-n,--negative-prompt",
       .default_note = "the model's",
       .parts = {"model"},
       .is_per_job = true},
  };
}

std::vector<KeySpec> clip_keys() {
  return {
      {.name = "num_frames",
       .type = KeyType::kInteger,
       .sentence = "frames, 4k+1",
       .group = "Clip",
       .flags = "--num-frames",
       .unit = "frames",
       .minimum = 1,
       .maximum = 100000,
       .default_note = "the model's",
       .parts = {"model"},
       .is_per_job = true},
      {.name = "height",
       .type = KeyType::kInteger,
       .sentence = "of the clip",
       .group = "Clip",
       .flags = "--height",
       .unit = "pixels",
       .minimum = 1,
       .maximum = 16384,
       .default_note = "the model's",
       .parts = {"model"},
       .is_per_job = true},
      {.name = "width",
       .type = KeyType::kInteger,
       .sentence = "of the clip",
       .group = "Clip",
       .flags = "--width",
       .unit = "pixels",
       .minimum = 1,
       .maximum = 16384,
       .default_note = "the model's",
       .parts = {"model"},
       .is_per_job = true},
      {.name = "size",
       .type = KeyType::kSize,
       .sentence = "WIDTHxHEIGHT in one flag; in files also [frames, height, width]",
       .group = "Clip",
       .flags = "--size",
       .default_note = "height and width",
       .parts = {"model"},
       .axes = {"num_frames", "height", "width"},
       .is_per_job = true},
      {.name = "fps",
       .type = KeyType::kInteger,
       .sentence = "frames per second",
       .group = "Clip",
       .flags = "--fps",
       .unit = "frames/s",
       .minimum = 1,
       .maximum = 240,
       .default_note = "the model's",
       .parts = {"model"},
       .is_per_job = true},
      {.name = "strict",
       .type = KeyType::kBoolean,
       .sentence = "refuse sizes that would be rounded",
       .group = "Clip",
       .flags = "--strict",
       .default_text = "false"},
      {.name = "seed",
       .type = KeyType::kInteger,
       .sentence = "of the noise; -1 draws one and prints it",
       .group = "Clip",
       .flags = "-s,--seed",
       .minimum = -1,
       .default_text = "0",
       .is_per_job = true},
  };
}

std::vector<KeySpec> output_keys() {
  return {
      {.name = "output",
       .type = KeyType::kPath,
       .sentence = "FILE.mp4, .mkv, .webm, .avi; FRAMES/ or f_{frame:05}.png",
       .group = "Output",
       .flags = "-o,--output",
       .default_note = "from prompt and seed",
       .is_per_job = true},
      {.name = "save_latents",
       .type = KeyType::kPath,
       .sentence = "final latents (safetensors)",
       .group = "Output",
       .flags = "--save-latents",
       .is_per_job = true},
      {.name = "codec",
       .sentence = "encoder: h264, ffv1, vp9 or an FFmpeg name",
       .group = "Output",
       .flags = "--codec",
       .default_note = "the container's usual one"},
      {.name = "crf",
       .type = KeyType::kInteger,
       .sentence = "quality of the encoder, smaller is better",
       .group = "Output",
       .flags = "--crf",
       .minimum = 0,
       .maximum = 63,
       .default_note = "18 for H.264"},
      {.name = "pix_fmt",
       .sentence = "pixel format",
       .group = "Output",
       .flags = "--pix-fmt",
       .default_note = "yuv420p"},
      {.name = "lossless",
       .type = KeyType::kBoolean,
       .sentence = "FFV1 in mkv, bit-exact frames",
       .group = "Output",
       .flags = "--lossless",
       .default_text = "false"},
      {.name = "save_frames",
       .type = KeyType::kPath,
       .sentence = "also write PNG frames into this folder",
       .group = "Output",
       .flags = "--save-frames",
       .is_per_job = true},
      {.name = "overwrite",
       .type = KeyType::kBoolean,
       .sentence = "replace outputs that exist",
       .group = "Output",
       .flags = "--overwrite",
       .default_text = "false"},
  };
}

std::vector<KeySpec> sampling_keys() {
  return {
      {.name = "num_inference_steps",
       .type = KeyType::kInteger,
       .sentence = "denoising steps",
       .group = "Sampling",
       .flags = "--num-inference-steps,--steps",
       .unit = "steps",
       .minimum = 1,
       .maximum = 1000,
       .default_note = "the model's",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "guidance_scale",
       .type = KeyType::kNumber,
       .sentence = "1 or less: no guidance",
       .group = "Sampling",
       .flags = "--guidance-scale,--cfg-scale",
       .default_note = "the model's",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "guidance_scale_2",
       .type = KeyType::kNumber,
       .sentence = "of the low-noise expert",
       .group = "Sampling",
       .flags = "--guidance-scale-2",
       .default_note = "as the first",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "flow_shift",
       .type = KeyType::kNumber,
       .sentence = "shift of the noise schedule",
       .group = "Sampling",
       .flags = "--flow-shift",
       .minimum = 0,
       .is_above_minimum = true,
       .default_note = "the model's",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "scheduler",
       .sentence = "sampler: unipc or euler",
       .group = "Sampling",
       .flags = "--scheduler",
       .choices = sampling::sampler_names(),
       .default_note = "the model's",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "sigma_spacing",
       .sentence = "auto, unipc, unipc-old, euler, distilled",
       .group = "Sampling",
       .flags = "--sigma-spacing",
       .choices = {"auto", "unipc", "unipc-old", "euler", "distilled"},
       .default_text = "auto",
       .parts = {"model", "sampling"},
       .is_per_job = true},
      {.name = "init_latents",
       .type = KeyType::kPath,
       .sentence = "start noise from a latents file",
       .group = "Sampling",
       .flags = "--init-latents",
       .default_note = "noise from the seed",
       .is_per_job = true},
      {.name = "attention",
       .sentence = "attention method: dense",
       .group = "Attention",
       .flags = "--attention",
       .default_text = "dense",
       .parts = {"attention"},
       .is_per_job = true},
      {.name = "attention_backend",
       .sentence = "force a kernel by name",
       .group = "Attention",
       .flags = "--attention-backend",
       .default_text = "auto",
       .parts = {"attention"},
       .is_per_job = true},
  };
}

std::vector<KeySpec> machine_keys() {
  return {
      {.name = "model",
       .type = KeyType::kPath,
       .sentence = "bundled name or folder in diffusers layout",
       .group = "Model",
       .flags = "--model",
       .default_note = "a small random model",
       .parts = {"model"}},
      {.name = "vae_tiling",
       .type = KeyType::kBoolean,
       .sentence = "decode in tiles of 256 px: less memory, slightly other pixels",
       .group = "Model",
       .flags = "--vae-tiling",
       .default_text = "false",
       .parts = {"model"}},
      {.name = "device",
       .sentence = "auto, cpu, cuda or cuda:N",
       .group = "Machine",
       .flags = "--device",
       .default_text = "auto"},
      {.name = "dtype",
       .sentence = "auto, fp32 or bf16",
       .group = "Machine",
       .flags = "--dtype",
       .choices = {"auto", "fp32", "bf16"},
       .default_text = "auto"},
      {.name = "threads",
       .type = KeyType::kInteger,
       .sentence = "CPU threads",
       .group = "Machine",
       .flags = "--threads",
       .minimum = 1,
       .maximum = 1024,
       .default_note = "all processors"},
  };
}

template <class T>
std::optional<T> optional_integer(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return static_cast<T>(node->as_integer());
}

std::optional<double> optional_number(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return node->as_number();
}

std::optional<std::string> optional_text(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return node->as_string();
}

}  // namespace

const config::KeyTable& generate_keys() {
  static const config::KeyTable table([] {
    std::vector<KeySpec> keys;
    for (const auto& group : {prompt_keys(), clip_keys(), output_keys(), sampling_keys(), machine_keys()}) {
      keys.insert(keys.end(), group.begin(), group.end());
    }
    return keys;
  }());
  return table;
}

Request to_request(const ConfigNode& effective) {
  Request r;
  if (const ConfigNode* prompts = effective.find("prompt")) {
    const ConfigNode::List& list = prompts->as_list();
    if (list.size() > 1) prompts->fail(fmt::format("expected one prompt for one clip, got {}", list.size()));
    if (!list.empty()) r.prompt = list[0].as_string();
  }
  r.negative_prompt = optional_text(effective, "negative_prompt");
  r.num_frames = optional_integer<int64_t>(effective, "num_frames");
  r.height = optional_integer<int64_t>(effective, "height");
  r.width = optional_integer<int64_t>(effective, "width");
  r.fps = optional_integer<int64_t>(effective, "fps");
  r.num_inference_steps = optional_integer<int>(effective, "num_inference_steps");
  r.guidance_scale = optional_number(effective, "guidance_scale");
  r.guidance_scale_2 = optional_number(effective, "guidance_scale_2");
  r.flow_shift = optional_number(effective, "flow_shift");
  r.scheduler = optional_text(effective, "scheduler");
  r.sigma_spacing = effective.get_string("sigma_spacing", r.sigma_spacing);
  const int64_t seed = effective.get_integer("seed", 0);
  if (seed < 0) effective.at("seed").fail("a seed must be drawn first");
  r.seed = static_cast<uint64_t>(seed);
  r.attention = effective.get_string("attention", r.attention);
  r.attention_backend = effective.get_string("attention_backend", r.attention_backend);
  r.is_strict = effective.get_bool("strict", false);
  r.uses_vae_tiling = effective.get_bool("vae_tiling", false);
  r.output = effective.get_string("output", "");
  r.init_latents = effective.get_string("init_latents", "");
  r.save_latents = effective.get_string("save_latents", "");
  r.save_frames = effective.get_string("save_frames", "");
  r.codec = effective.get_string("codec", "");
  r.pix_fmt = effective.get_string("pix_fmt", "");
  r.crf = static_cast<int>(effective.get_integer("crf", -1));
  r.is_lossless = effective.get_bool("lossless", false);
  r.may_overwrite = effective.get_bool("overwrite", false);
  return r;
}

}  // namespace strobe::pipelines
