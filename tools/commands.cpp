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
          .summary = "bundled, known and found models; random checkpoints; clips of the bundled one",
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

// Size and length of rendered clips: those of the clips that the bundled model makes, unless given.
std::vector<KeySpec> sprite_keys() {
  const auto sized = [](const std::string& name, const std::string& sentence, const std::string& size) {
    KeySpec key = said(name, sentence);
    key.default_text = size;
    key.default_note = "";
    return key;
  };
  KeySpec frames = sized("num_frames", "of a clip", "33");
  frames.flags = "--num-frames,--frames";
  return {frames,
          sized("height", "of a clip", "128"),
          sized("width", "of a clip", "128"),
          *generate_keys().find("size"),
          {.name = "seed",
           .type = KeyType::kInteger,
           .sentence = "of the scenes",
           .group = "Clip",
           .flags = "-s,--seed",
           .minimum = 0,
           .default_text = "0"},
          {.name = "two_objects",
           .type = KeyType::kBoolean,
           .sentence = "two objects a clip",
           .group = "Clip",
           .flags = "--two-objects",
           .default_text = "false"},
          {.name = "held_out",
           .type = KeyType::kBoolean,
           .sentence = "combinations that training never draws, instead of the others",
           .group = "Clip",
           .flags = "--held-out",
           .default_text = "false"}};
}

CommandSpec sprites_clips() {
  std::vector<KeySpec> keys = sprite_keys();
  keys.push_back(required(said("output", "folder to make; must not exist or be empty")));
  keys.push_back({.name = "num_clips",
                  .type = KeyType::kInteger,
                  .sentence = "how many",
                  .group = "Clip",
                  .flags = "-n,--num-clips",
                  .unit = "clips",
                  .minimum = 1,
                  .maximum = 100000,
                  .default_text = "8"});
  keys.push_back({.name = "evaluation",
                  .type = KeyType::kBoolean,
                  .sentence = "the clips of the fixed evaluation captions instead",
                  .group = "Clip",
                  .flags = "--evaluation",
                  .default_text = "false"});
  return {.name = "models sprites-clips",
          .summary = "training clips of the bundled model, with captions, as video files",
          .keys = pick_keys({"lossless", "pix_fmt", "threads", "quiet", "verbose"}, keys),
          .examples = "  strobe models sprites-clips -o clips -n 16 --seed 1 --size 128x128 --frames 33\n"};
}

CommandSpec sprites_check() {
  std::vector<KeySpec> keys = sprite_keys();
  const auto damage = [](const std::string& name, const std::string& sentence, const std::string& unit) {
    return KeySpec{.name = name,
                   .type = KeyType::kNumber,
                   .sentence = sentence,
                   .group = "Clip",
                   .flags = "--" + name,
                   .unit = unit,
                   .minimum = 0,
                   .maximum = 100,
                   .default_text = "0"};
  };
  keys.push_back(damage("noise", "standard deviation of noise on rendered clips, of levels from 0 to 1", ""));
  keys.push_back(damage("blur", "sigma of a Gaussian blur of rendered clips", "pixels"));
  keys.push_back({.name = "rendered",
                  .type = KeyType::kInteger,
                  .sentence = "instead of files, this many clips as they are rendered: the checker's own accuracy",
                  .group = "Input",
                  .flags = "--rendered",
                  .unit = "clips",
                  .minimum = 1,
                  .maximum = 1000000});
  keys.push_back({.name = "captions",
                  .type = KeyType::kPath,
                  .sentence = "what was asked for: .jsonl with file and caption, or a line a clip in order",
                  .group = "Input",
                  .flags = "--captions",
                  .default_note = "what each clip says of itself"});
  keys.push_back({.name = "json",
                  .type = KeyType::kPath,
                  .sentence = "readings, verdicts and score as JSON into FILE, or to stdout with -",
                  .group = "Output",
                  .flags = "--json"});
  keys.push_back(said("overwrite", "replace a JSON file that exists"));
  return {.name = "models sprites-check",
          .summary = "reads size, colour, shape, motion and background back from clips",
          .positionals = {{"FILE", "videos or folders of images", /*is_required=*/false, /*is_list=*/true}},
          .keys = pick_keys({"threads", "quiet", "verbose"}, keys),
          .examples =
              "  strobe models sprites-check runs/*.mp4\n"
              "  strobe models sprites-check --rendered 300 --size 64x64 --frames 17 --noise 0.1\n"};
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

KeySpec integer_key(const std::string& name, const std::string& flag, const std::string& sentence, double minimum) {
  return {.name = name,
          .type = KeyType::kInteger,
          .sentence = sentence,
          .group = "Call",
          .flags = flag,
          .minimum = minimum,
          .maximum = 1 << 30};
}

std::vector<KeySpec> pattern_keys() {
  return {said("attention", "one method: METHOD[:key=value,...]"),
          {.name = "qkv",
           .type = KeyType::kPath,
           .sentence = "safetensors with q [B, H, N, D], k and v [B, Hk, N, D], later calls as q2 k2 v2 ...",
           .group = "Input",
           .flags = "--qkv"},
          {.name = "grid",
           .sentence = "FRAMES,ROWS,COLS of the video tokens",
           .group = "Input",
           .flags = "--grid",
           .default_note = "1,1,N"},
          {.name = "text",
           .sentence = "TOKENS[:start or :end] of text in the sequence",
           .group = "Input",
           .flags = "--text",
           .default_note = "none"},
          integer_key("block_size", "--block-size", "option block_size of the method", 1),
          integer_key("query_block", "--query-block", "option query_block of the method", 1),
          integer_key("layer", "--layer", "layer of the call", 0),
          integer_key("layers", "--layers", "layers of the model", 1),
          integer_key("step", "--step", "step of the first call; rules that make early steps dense then hold", 0),
          integer_key("steps", "--steps", "steps of the run", 1),
          {.name = "sigma",
           .type = KeyType::kNumber,
           .sentence = "noise level of the call",
           .group = "Call",
           .flags = "--sigma",
           .minimum = 0},
          integer_key("heads", "--heads", "heads of the layout, where no tensors say it", 1),
          *generate_keys().find("overwrite")};
}

std::vector<CommandSpec> pattern_commands() {
  std::vector<KeySpec> run = pattern_keys();
  run.push_back({.name = "call_steps",
                 .sentence = "steps of the calls of the file, such as 10,30",
                 .group = "Call",
                 .flags = "--call-steps"});
  run.push_back(integer_key("seed", "-s,--seed", "of methods that draw", 0));
  run.push_back({.name = "plan_only",
                 .type = KeyType::kBoolean,
                 .sentence = "the layout without its attention",
                 .group = "Call",
                 .flags = "--plan-only",
                 .default_text = "false"});
  run.push_back(said("output", "safetensors: level, query_offsets, key_offsets, q_order, k_order, out, lse"));
  std::vector<KeySpec> show = pattern_keys();
  show.push_back(integer_key("head", "--head", "head to show", 0));
  show.push_back(said("output", "PNG picture (default: text on stdout)"));
  return {
      {.name = "pattern",
       .summary = "attention methods on their own: run, show, list",
       .keys = KeyTable({}),
       .is_group = true},
      {.name = "pattern run",
       .summary = "plans and runs one method on tensors of a file",
       .keys =
           pick_keys({"attention_backend", "pattern_cache_mib", "device", "dtype", "threads", "quiet", "verbose"}, run),
       .examples = "  strobe pattern run --qkv case.safetensors --attention radial:decay_factor=1 --grid 4,8,8 -o "
                   "out.safetensors\n"},
      {.name = "pattern show",
       .summary = "a layout as text or as a picture",
       .positionals = {{"FILE", "what `pattern run` or `generate --dump` wrote", /*is_required=*/false}},
       .keys = pick_keys({"device", "dtype", "threads", "quiet", "verbose"}, show),
       .examples = "  strobe pattern show --attention radial --grid 21,30,52 -o radial.png\n"},
      {.name = "pattern list",
       .summary = "attention methods, or the options and presets of one",
       .positionals = {{"METHOD", "a method", /*is_required=*/false}},
       .keys = KeyTable({})},
  };
}

std::vector<CommandSpec> bench_commands() {
  const auto text = [](const std::string& name, const std::string& flag, const std::string& sentence,
                       const std::string& fallback) {
    return KeySpec{.name = name, .sentence = sentence, .group = "Call", .flags = flag, .default_text = fallback};
  };
  const auto integer = [](const std::string& name, const std::string& flag, const std::string& sentence,
                          const std::string& fallback, double maximum) {
    KeySpec key = integer_key(name, flag, sentence, 1);
    key.maximum = maximum;
    key.default_text = fallback;
    return key;
  };
  KeySpec methods = said("attention", "methods to measure too: METHOD[:key=value,...], repeatable");
  methods.default_text = "";
  KeySpec against = text("against", "--against", "a dense kernel of somebody else", "");
  against.choices = {"sdpa"};
  KeySpec json = {.name = "json",
                  .type = KeyType::kPath,
                  .sentence = "the rows as JSON into FILE, or to stdout with -",
                  .group = "Output",
                  .flags = "--json"};
  std::vector<KeySpec> keys = {
      integer("tokens", "--tokens", "tokens of a call", "8192", 1 << 20),
      integer("heads", "--heads", "heads", "2", 1024),
      integer("head_dim", "--head-dim", "width of a head", "128", 256),
      text("block_size", "--block-size", "block sizes of random layouts, such as 64,128", "\"64\""),
      text("density", "--density", "densities of random layouts, such as 0.05,0.1", "\"0.05,0.1,0.25,0.5\""),
      methods,
      {.name = "grid",
       .sentence = "FRAMES,ROWS,COLS for the methods",
       .group = "Call",
       .flags = "--grid",
       .default_note = "1,1,N"},
      {.name = "text",
       .sentence = "TOKENS[:start or :end] of text",
       .group = "Call",
       .flags = "--text",
       .default_note = "none"},
      against,
      integer("rounds", "--rounds", "rounds, each runs every variant once", "7", 10000),
      json,
      *generate_keys().find("overwrite")};
  return {{.name = "bench",
           .summary = "speed on this machine, interleaved, as ratios",
           .keys = KeyTable({}),
           .is_group = true},
          {.name = "bench attention",
           .summary = "attention kernels and methods: share of the peak, ratio to dense and to LibTorch",
           .keys = pick_keys({"attention_backend", "device", "dtype", "threads", "quiet", "verbose"}, keys),
           .examples = "  strobe bench attention --tokens 8192 --heads 2 --head-dim 128 --block-size 64,128 --density "
                       "0.05,0.1 --against sdpa\n"}};
}

CommandSpec train() {
  return {
      .name = "train",
      .summary = "a training file to a model folder or a LoRA, resumable",
      .positionals = {{"FILE", "recipe, such as configs/training/sprites_lite.yaml"}},
      .keys = pick_keys({"device", "dtype", "threads", "quiet", "verbose"},
                        {required(said("output", "folder of the run: checkpoints, log, samples, model/")),
                         said("resume", "go on from the folder's last checkpoint"),
                         {.name = "preview",
                          .type = KeyType::kInteger,
                          .sentence = "only write this many clips of the last stage's data, as samples/preview-*.mp4",
                          .group = "Run",
                          .flags = "--preview",
                          .minimum = 0,
                          .maximum = 10000,
                          .default_text = "0"},
                         {.name = "minutes",
                          .type = KeyType::kNumber,
                          .sentence = "write a checkpoint and stop after this time; 0: when all is done",
                          .group = "Run",
                          .flags = "--minutes",
                          .minimum = 0,
                          .default_text = "0"},
                         {.name = "max_steps",
                          .type = KeyType::kInteger,
                          .sentence = "likewise after this many steps",
                          .group = "Run",
                          .flags = "--max-steps",
                          .minimum = 0,
                          .maximum = 1e12,
                          .default_text = "0"}}),
      .examples = "  strobe train configs/training/sprites_lite.yaml -o runs/sprites --resume\n"};
}

CommandSpec completion() {
  return {.name = "completion",
          .summary = "completion script for bash or zsh",
          .positionals = {{"SHELL", "bash or zsh"}},
          .keys = KeyTable({}),
          .examples = "  source <(strobe completion bash)\n  strobe completion zsh > ~/.zfunc/_strobe\n"};
}

CommandSpec doctor() {
  return {.name = "doctor",
          .summary = "this machine: CPU, GPUs, libraries, codecs, kernels",
          .keys = KeyTable({{.name = "self_test",
                             .type = KeyType::kBoolean,
                             .sentence = "run every kernel here against float64, under a minute",
                             .group = "Run",
                             .flags = "--self-test",
                             .default_text = "false"}})};
}

}  // namespace

const std::vector<CommandSpec>& commands() {
  static const std::vector<CommandSpec> list = [] {
    std::vector<CommandSpec> all = {generate(), decode(),      encode(),        replay(),       plan(),
                                    models(),   make_random(), sprites_clips(), sprites_check()};
    for (CommandSpec& command : config_commands()) all.push_back(std::move(command));
    for (CommandSpec& command : bench_commands()) all.push_back(std::move(command));
    for (CommandSpec& command : pattern_commands()) all.push_back(std::move(command));
    all.push_back(train());
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
