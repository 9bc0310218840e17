#include "pipelines/generate_keys.h"

#include <fmt/ranges.h>

namespace strobe::pipelines {
namespace {

using config::KeySpec;
using config::KeyType;

// Rows that share what is said once.
struct Group {
  std::string name;
  std::vector<std::string> parts;
  bool is_per_job = false;
  std::vector<KeySpec> rows;
};

std::vector<KeySpec> flatten(std::vector<Group> groups) {
  std::vector<KeySpec> keys;
  for (Group& group : groups) {
    for (KeySpec& row : group.rows) {
      row.group = group.name;
      row.parts = group.parts;
      row.is_per_job = group.is_per_job;
      keys.push_back(std::move(row));
    }
  }
  return keys;
}

std::vector<std::string> attention_methods() {
  return {
#define STROBE_PATTERN(name) #name,
#include "attention/patterns/patterns.inc"
#undef STROBE_PATTERN
  };
}

std::vector<std::string> scheduler_names() {
  return {
#define STROBE_SAMPLER(name) #name,
#include "sampling/samplers.inc"
#undef STROBE_SAMPLER
  };
}

std::vector<Group> prompt_groups() {
  return {
      {.name = "Prompts",
       .is_per_job = true,
       .rows = {{.name = "prompt",
                 .sentence = "what the clip shows; repeatable",
                 .flags = "-p,--prompt",
                 .default_note = "must be given",
                 .is_list = true}}},
      {.name = "Prompts",
       .rows = {{.name = "prompt_file",
                 .type = KeyType::kPath,
                 .sentence = "prompts from a .txt, .jsonl, .csv, .yaml or VBench .json file",
                 .flags = "-f,--prompt-file"},
                {.name = "start",
                 .type = KeyType::kInteger,
                 .sentence = "first prompt to make, from 0",
                 .flags = "--start",
                 .unit = "prompts",
                 .minimum = 0,
                 .default_text = "0"},
                {.name = "limit",
                 .type = KeyType::kInteger,
                 .sentence = "at most this many prompts",
                 .flags = "--limit",
                 .unit = "prompts",
                 .minimum = 1,
                 .default_note = "all"},
                {.name = "shard",
                 .sentence = "i/n: every n-th of these prompts, from the i-th on, i from 0",
                 .flags = "--shard",
                 .default_note = "all"},
                {.name = "num_videos",
                 .type = KeyType::kInteger,
                 .sentence = "clips of each prompt, with seeds N, N+1 ...",
                 .flags = "--num-videos",
                 .unit = "clips",
                 .minimum = 1,
                 .maximum = 100000,
                 .default_text = "1"}}},
      {.name = "Prompts",
       .parts = {"model"},
       .is_per_job = true,
       .rows = {{.name = "negative_prompt",
                 .sentence = "what it should not show",
                 .flags = "-n,--negative-prompt",
                 .default_note = "the model's"}}},
  };
}

std::vector<Group> clip_groups() {
  return {
      {.name = "Clip",
       .parts = {"model"},
       .is_per_job = true,
       .rows = {{.name = "num_frames",
                 .type = KeyType::kInteger,
                 .sentence = "frames, 4k+1",
                 .flags = "--num-frames",
                 .unit = "frames",
                 .minimum = 1,
                 .maximum = 100000,
                 .default_note = "the model's"},
                {.name = "height",
                 .type = KeyType::kInteger,
                 .sentence = "of the clip",
                 .flags = "--height",
                 .unit = "pixels",
                 .minimum = 1,
                 .maximum = 16384,
                 .default_note = "the model's"},
                {.name = "width",
                 .type = KeyType::kInteger,
                 .sentence = "of the clip",
                 .flags = "--width",
                 .unit = "pixels",
                 .minimum = 1,
                 .maximum = 16384,
                 .default_note = "the model's"},
                {.name = "size",
                 .type = KeyType::kSize,
                 .sentence = "WIDTHxHEIGHT in one flag; in files also [frames, height, width]",
                 .flags = "--size",
                 .default_note = "height and width",
                 .axes = {"num_frames", "height", "width"}},
                {.name = "fps",
                 .type = KeyType::kInteger,
                 .sentence = "of the video",
                 .flags = "--fps",
                 .unit = "frames/s",
                 .minimum = 1,
                 .maximum = 240,
                 .default_note = "the model's"}}},
      {.name = "Clip",
       .rows = {{.name = "strict",
                 .type = KeyType::kBoolean,
                 .sentence = "refuse sizes that would be rounded",
                 .flags = "--strict",
                 .default_text = "false"}}},
      {.name = "Clip",
       .is_per_job = true,
       .rows = {{.name = "seed",
                 .type = KeyType::kInteger,
                 .sentence = "of the noise; -1 draws one and prints it",
                 .flags = "-s,--seed",
                 .minimum = -1,
                 .default_text = "0"}}},
  };
}

std::vector<Group> output_groups() {
  return {
      {.name = "Output",
       .is_per_job = true,
       .rows = {{.name = "output",
                 .type = KeyType::kPath,
                 .sentence =
                     "FILE.mp4 .mkv .webm .avi, FRAMES/, FRAME.png, FOLDER, or a pattern with {index:04} {slug} "
                     "{seed} {method} {density} {model} {ext}",
                 .flags = "-o,--output",
                 .default_note = "from prompt and seed"},
                {.name = "save_latents",
                 .type = KeyType::kPath,
                 .sentence = "final latents (safetensors): file, folder or pattern",
                 .flags = "--save-latents"},
                {.name = "save_frames",
                 .type = KeyType::kPath,
                 .sentence = "also write PNG frames into this folder",
                 .flags = "--save-frames"},
                {.name = "dump",
                 .type = KeyType::kPath,
                 .sentence = "folder for layouts, outputs and statistics of every attention call; large",
                 .flags = "--dump"}}},
      {.name = "Output",
       .rows = {{.name = "codec",
                 .sentence = "encoder: h264, ffv1, vp9 or an FFmpeg name",
                 .flags = "--codec",
                 .default_note = "the container's usual one"},
                {.name = "crf",
                 .type = KeyType::kInteger,
                 .sentence = "quality of the encoder, smaller is better",
                 .flags = "--crf",
                 .minimum = 0,
                 .maximum = 63,
                 .default_note = "18 for H.264"},
                {.name = "pix_fmt", .sentence = "pixel format", .flags = "--pix-fmt", .default_note = "yuv420p"},
                {.name = "lossless",
                 .type = KeyType::kBoolean,
                 .sentence = "FFV1 in mkv, bit-exact frames",
                 .flags = "--lossless",
                 .default_text = "false"},
                {.name = "overwrite",
                 .type = KeyType::kBoolean,
                 .sentence = "replace outputs that exist",
                 .flags = "--overwrite",
                 .default_text = "false"}}},
  };
}

std::vector<Group> sampling_groups() {
  return {
      {.name = "Sampling",
       .parts = {"model", "sampling"},
       .is_per_job = true,
       .rows = {{.name = "num_inference_steps",
                 .type = KeyType::kInteger,
                 .sentence = "denoising steps",
                 .flags = "--num-inference-steps,--steps",
                 .unit = "steps",
                 .minimum = 1,
                 .maximum = 1000,
                 .default_note = "the model's"},
                {.name = "guidance_scale",
                 .type = KeyType::kNumber,
                 .sentence = "1 or less: no guidance",
                 .flags = "--guidance-scale,--cfg-scale",
                 .default_note = "the model's"},
                {.name = "guidance_scale_2",
                 .type = KeyType::kNumber,
                 .sentence = "of the low-noise expert",
                 .flags = "--guidance-scale-2",
                 .default_note = "as the first"},
                {.name = "flow_shift",
                 .type = KeyType::kNumber,
                 .sentence = "shift of the noise schedule",
                 .flags = "--flow-shift",
                 .minimum = 0,
                 .is_above_minimum = true,
                 .default_note = "the model's"},
                {.name = "scheduler",
                 .sentence = "sampler: unipc or euler",
                 .flags = "--scheduler",
                 .choices = scheduler_names(),
                 .default_note = "the model's"},
                {.name = "sigma_spacing",
                 .sentence = "how the noise levels are spaced",
                 .flags = "--sigma-spacing",
                 .choices = {"auto", "unipc", "unipc-old", "euler", "distilled"},
                 .default_text = "auto"}}},
      {.name = "Sampling",
       .is_per_job = true,
       .rows = {{.name = "init_latents",
                 .type = KeyType::kPath,
                 .sentence = "start noise from a latents file",
                 .flags = "--init-latents",
                 .default_note = "noise from the seed"}}},
      {.name = "Attention",
       .parts = {"attention"},
       .is_per_job = true,
       .rows = {{.name = "attention",
                 .sentence = fmt::format("METHOD[:key=value,...], repeatable, the last that matches wins: {}",
                                         fmt::join(attention_methods(), ", ")),
                 .flags = "--attention",
                 .default_text = "[dense]",
                 .is_list = true,
                 .takes_method_map = true},
                {.name = "attention_backend",
                 .sentence = "force a kernel by name",
                 .flags = "--attention-backend",
                 .default_text = "auto"},
                {.name = "pattern_cache_mib",
                 .type = KeyType::kInteger,
                 .sentence = "bound of the cache of patterns, and of what methods remember between steps",
                 .flags = "--pattern-cache-mib",
                 .unit = "MiB",
                 .minimum = 0,
                 .maximum = 1 << 20,
                 .default_text = "2048"}}},
  };
}

std::vector<Group> machine_groups() {
  return {
      {.name = "Model",
       .parts = {"model"},
       .rows = {{.name = "model",
                 .type = KeyType::kPath,
                 .sentence = "bundled name or folder in diffusers layout",
                 .flags = "--model",
                 .default_note = "a small random model"},
                {.name = "lora",
                 .sentence = "FILE[:WEIGHT]: a LoRA merged into the weights; repeatable",
                 .flags = "--lora",
                 .is_list = true},
                {.name = "vae_tiling",
                 .type = KeyType::kBoolean,
                 .sentence = "decode in tiles of 256 px: less memory, slightly other pixels",
                 .flags = "--vae-tiling",
                 .default_text = "false"}}},
      {.name = "Machine",
       .rows =
           {{.name = "device", .sentence = "auto, cpu, cuda or cuda:N", .flags = "--device", .default_text = "auto"},
            {.name = "dtype",
             .sentence = "of the computation",
             .flags = "--dtype",
             .choices = {"auto", "fp32", "bf16"},
             .default_text = "auto"},
            {.name = "threads",
             .type = KeyType::kInteger,
             .sentence = "CPU threads",
             .flags = "--threads",
             .minimum = 1,
             .maximum = 1024,
             .default_note = "all processors"},
            {.name = "offload",
             .sentence = "what waits outside memory: none, idle parts (model), or each layer too (layers)",
             .flags = "--offload",
             .choices = {"auto", "none", "model", "layers"},
             .default_text = "auto"},
            {.name = "max_vram_gib",
             .type = KeyType::kNumber,
             .sentence = "memory that the run may use; what is planned above it is refused",
             .flags = "--max-vram",
             .unit = "GiB",
             .minimum = 0,
             .is_above_minimum = true,
             .default_note = "what the machine has"},
            {.name = "embedding_cache",
             .type = KeyType::kPath,
             .sentence = "folder of prompts that were encoded before, or off",
             .flags = "--embedding-cache",
             .default_note = "in the user's cache folder"}}},
  };
}

std::vector<Group> run_groups() {
  return {
      {.name = "Run",
       .rows = {{.name = "checkpoint_every",
                 .type = KeyType::kInteger,
                 .sentence = "keep the state every N steps, and before decoding",
                 .flags = "--checkpoint-every",
                 .unit = "steps",
                 .minimum = 1,
                 .default_note = "the steps of a minute"},
                {.name = "resume",
                 .type = KeyType::kBoolean,
                 .sentence = "go on from checkpoints; finished clips are left as they are",
                 .flags = "--resume",
                 .default_text = "false"},
                {.name = "skip_existing",
                 .type = KeyType::kBoolean,
                 .sentence = "leave clips whose side-car has the same request",
                 .flags = "--skip-existing",
                 .default_text = "false"},
                {.name = "keep_going",
                 .type = KeyType::kBoolean,
                 .sentence = "after a clip that failed, make the others",
                 .flags = "--keep-going",
                 .default_text = "false"},
                {.name = "dry_run",
                 .type = KeyType::kBoolean,
                 .sentence = "list the clips with what is decided, load nothing",
                 .flags = "--dry-run",
                 .default_text = "false"},
                {.name = "deterministic",
                 .type = KeyType::kBoolean,
                 .sentence = "the same bits again on the same machine and build; always so on a CPU",
                 .flags = "--deterministic",
                 .default_text = "false"}}},
      {.name = "Talk",
       .rows = {{.name = "log_json",
                 .type = KeyType::kPath,
                 .sentence = "a JSON line per event: job, step, done, error",
                 .flags = "--log-json"},
                {.name = "quiet",
                 .type = KeyType::kBoolean,
                 .sentence = "no progress, only warnings and errors",
                 .flags = "-q,--quiet",
                 .default_text = "false"},
                {.name = "verbose",
                 .type = KeyType::kBoolean,
                 .sentence = "say more",
                 .flags = "-v,--verbose",
                 .default_text = "false"}}},
  };
}

}  // namespace

const config::KeyTable& generate_keys() {
  static const config::KeyTable table([] {
    std::vector<Group> groups;
    for (const auto& some :
         {prompt_groups(), clip_groups(), output_groups(), sampling_groups(), machine_groups(), run_groups()}) {
      groups.insert(groups.end(), some.begin(), some.end());
    }
    return flatten(std::move(groups));
  }());
  return table;
}

config::KeyTable pick_keys(const std::vector<std::string>& names, std::vector<config::KeySpec> more) {
  for (const std::string& name : names) more.push_back(*generate_keys().find(name));
  return config::KeyTable(std::move(more));
}

}  // namespace strobe::pipelines
