#include "tools/commands.h"

#include <algorithm>

#include "pipelines/generate_keys.h"

namespace strobe::tools {
namespace {

using config::KeySpec;
using config::KeyTable;
using config::KeyType;
using pipelines::generate_keys;
using pipelines::pick_keys;

// A key of the table with other words.
KeySpec said(const std::string& name, const std::string& sentence) {
  KeySpec key = *generate_keys().find(name);
  key.sentence = sentence;
  return key;
}

KeySpec required(KeySpec key) {
  key.default_text = "";
  key.default_note = "must be given";
  return key;
}

const std::vector<std::string> kMachine = {"model", "device", "dtype", "threads", "quiet", "verbose"};

std::vector<std::string> with_machine(std::vector<std::string> names) {
  names.insert(names.end(), kMachine.begin(), kMachine.end());
  return names;
}

CommandSpec generate() {
  return {.name = "generate",
          .summary = "prompts to videos",
          .keys = generate_keys(),
          .has_config = true,
          .examples =
              "  strobe generate -p \"a red circle moving left\" -o circle.mp4\n"
              "  strobe generate -f prompts.txt -o 'runs/{index:04}_{slug}.mp4' --resume --keep-going\n"};
}

CommandSpec decode() {
  return {.name = "decode",
          .summary = "a latents file to a video",
          .positionals = {{"LATENTS", "latents file (safetensors)"}},
          .keys = pick_keys(
              with_machine({"save_frames", "codec", "crf", "pix_fmt", "lossless", "overwrite", "fps", "vae_tiling"}),
              {required(said("output", "video file or frames folder"))})};
}

CommandSpec encode() {
  return {.name = "encode",
          .summary = "a video to a latents file",
          .positionals = {{"VIDEO", "any video file that FFmpeg reads, or a folder of images"}},
          .keys = pick_keys(
              with_machine({"overwrite", "size", "strict", "vae_tiling"}),
              {required(said("output", "latents file (safetensors)")), said("num_frames", "at most this many frames"),
               said("height", "resize to this height"), said("width", "resize to this width")})};
}

CommandSpec replay() {
  return {.name = "replay",
          .summary = "makes a clip again from what the clip says of itself, and compares",
          .positionals = {{"CLIP", "a video or a side-car (.json) that generate wrote"}},
          .keys = pick_keys({"overwrite", "device", "dtype", "threads", "offload", "max_vram_gib", "quiet", "verbose"},
                            {said("model", "folder of the model, where it has moved"),
                             said("output", "where the new clip goes (default: a temporary file, removed)"),
                             {.name = "dry_run",
                              .type = KeyType::kBoolean,
                              .sentence = "print the command and stop",
                              .group = "Run",
                              .flags = "--dry-run",
                              .default_text = "false"}})};
}

CommandSpec plan() {
  std::vector<std::string> shared = {"num_frames", "height", "width", "size", "fps", "strict"};
  for (const KeySpec& key : generate_keys().keys()) {
    if (key.group == "Sampling" || key.group == "Attention") shared.push_back(key.name);
  }
  return {.name = "plan",
          .summary = "what a run costs: tokens, FLOPs, memory, time; reads no weights",
          .keys = pick_keys(with_machine(shared), {{.name = "text_tokens",
                                                    .type = KeyType::kInteger,
                                                    .sentence = "tokens of each prompt",
                                                    .group = "Clip",
                                                    .flags = "--text-tokens",
                                                    .unit = "tokens",
                                                    .minimum = 1,
                                                    .default_note = "as many as the model takes"},
                                                   {.name = "json",
                                                    .type = KeyType::kPath,
                                                    .sentence = "the plan as JSON into FILE, or to stdout with -",
                                                    .group = "Output",
                                                    .flags = "--json"},
                                                   said("overwrite", "replace a JSON file that exists")}),
          .has_config = true,
          .examples = "  strobe plan --model wan_14b --size 1280x720 --num-frames 81\n"};
}

CommandSpec models() {
  return {.name = "models",
          .summary = "bundled, known and found models; random checkpoints",
          .positionals = {{"FOLDER", "model folders to describe (default: the bundled ones and what is known)",
                           /*is_required=*/false, /*is_list=*/true}},
          .keys = KeyTable({})};
}

CommandSpec make_random() {
  return {.name = "models make-random",
          .summary = "a complete checkpoint of a known size with random weights",
          .positionals = {{"DIR", "folder to make; must not exist or be empty"}},
          .keys = KeyTable({{.name = "like",
                             .sentence = "architecture: a name that `strobe models` lists, such as wan_1_3b",
                             .group = "Weights",
                             .flags = "--like",
                             .default_note = "must be given"},
                            {.name = "zeros",
                             .type = KeyType::kBoolean,
                             .sentence = "zeros instead, as holes: no time and no disk space",
                             .group = "Weights",
                             .flags = "--zeros",
                             .default_text = "false"},
                            {.name = "seed",
                             .type = KeyType::kInteger,
                             .sentence = "of the values",
                             .group = "Weights",
                             .flags = "-s,--seed",
                             .minimum = 0,
                             .maximum = 281474976710655.0,  // 2^48 - 1, what the generator takes
                             .default_text = "0"},
                            {.name = "dtype",
                             .sentence = "of all weights",
                             .group = "Weights",
                             .flags = "--dtype",
                             .choices = {"fp32", "bf16", "fp16"},
                             .default_note = "as published"},
                            *generate_keys().find("quiet")})};
}

std::vector<CommandSpec> config_commands() {
  const KeySpec json = {.name = "json",
                        .type = KeyType::kBoolean,
                        .sentence = "as JSON, each value with its origin",
                        .group = "Output",
                        .flags = "--json",
                        .default_text = "false"};
  std::vector<KeySpec> show_keys = generate_keys().keys();
  show_keys.push_back(json);
  return {
      {.name = "config", .summary = "the composed configuration and every key", .keys = KeyTable({}), .is_group = true},
      {.name = "config show",
       .summary = "what a run would take, with the origin of each value",
       .positionals = {{"FILE", "run file, as --config", /*is_required=*/false}},
       .keys = KeyTable(show_keys),
       .has_config = true},
      {.name = "config explain",
       .summary = "every key, or one, with type, unit and default",
       .positionals = {{"KEY", "a key or a flag", /*is_required=*/false}},
       .keys = KeyTable({})},
      {.name = "config schema", .summary = "JSON schema of a run file, for editors", .keys = KeyTable({})},
  };
}

CommandSpec completion() {
  return {.name = "completion",
          .summary = "completion script for bash or zsh",
          .positionals = {{"SHELL", "bash or zsh"}},
          .keys = KeyTable({}),
          .examples = "  source <(strobe completion bash)\n  strobe completion zsh > ~/.zfunc/_strobe\n"};
}

CommandSpec doctor() {
  return {.name = "doctor", .summary = "this machine: CPU, GPUs, libraries, codecs, kernels", .keys = KeyTable({})};
}

}  // namespace

const std::vector<CommandSpec>& commands() {
  static const std::vector<CommandSpec> list = [] {
    std::vector<CommandSpec> all = {generate(), decode(), encode(), replay(), plan(), models(), make_random()};
    for (CommandSpec& command : config_commands()) all.push_back(std::move(command));
    all.push_back(completion());
    all.push_back(doctor());
    return all;
  }();
  return list;
}

const CommandSpec* find_command(std::string_view name) {
  const auto& all = commands();
  const auto found = std::find_if(all.begin(), all.end(), [&](const CommandSpec& spec) { return spec.name == name; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace strobe::tools
