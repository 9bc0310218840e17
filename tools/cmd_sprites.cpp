// strobe models sprites-clips and sprites-check: the bundled model's data as files, and the checker of its clips.
#include <fmt/ranges.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "tools/app.h"
#include "tools/progress_line.h"
#include "tools/sprite_report.h"
#include "training/sprites/checker/degrade.h"
#include "training/sprites/render.h"
#include "video/video_reader.h"
#include "video/video_writer.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

namespace fs = std::filesystem;
namespace sprites = training::sprites;

constexpr int64_t kFps = 16;
constexpr const char* kCaptionsFile = "captions.jsonl";

sprites::ClipView view_of(const ConfigNode& effective) {
  return {.width = effective.get_integer("width", 128),
          .height = effective.get_integer("height", 128),
          .frames = effective.get_integer("num_frames", 33)};
}

sprites::SceneOptions scene_options(const ConfigNode& effective) {
  return {.num_objects = effective.get_bool("two_objects", false) ? 2 : 1,
          .split = effective.get_bool("held_out", false) ? sprites::Split::kHeldOut : sprites::Split::kTraining};
}

uint64_t seed_of(const ConfigNode& effective) { return static_cast<uint64_t>(effective.get_integer("seed", 0)); }

std::vector<sprites::Scene> scenes_of(const ConfigNode& effective) {
  const int64_t count = effective.get_integer("num_clips", 8);
  std::vector<sprites::Scene> scenes;
  if (effective.get_bool("evaluation", false)) {
    for (const char* key : {"seed", "two_objects", "held_out", "num_clips"}) {
      const ConfigNode* node = effective.find(key);
      if (node && node->origin() != "default") {
        throw ConfigError(fmt::format("--evaluation: {} clips that are fixed; {} has no say",
                                      sprites::kNumEvaluationScenes, node->origin()));
      }
    }
    return sprites::evaluation_scenes();
  }
  for (int64_t index = 0; index < count; ++index) {
    scenes.push_back(sprites::draw_scene(seed_of(effective), static_cast<uint64_t>(index), scene_options(effective)));
  }
  return scenes;
}

void stop_if_interrupted() {
  if (is_interrupted()) throw InterruptedError("interrupted");
}

// What a clip says of itself; caption_in reads it, and what generate writes.
std::string comment_of(const std::string& caption) {
  const ConfigNode request = ConfigNode::map({{"prompt", ConfigNode::string(caption)}});
  return weights::to_json(ConfigNode::map({{"schema", ConfigNode::integer(1)},
                                           {"kind", ConfigNode::string("strobe sprite clip")},
                                           {"request", request}}),
                          /*indent=*/-1);
}

// What a clip says that it was asked for; empty where it says nothing.
std::string caption_in(const fs::path& clip) {
  if (fs::is_directory(clip)) return {};
  const std::string comment = video::read_comment(clip);
  if (!comment.starts_with('{')) return {};
  const ConfigNode node = weights::parse_json(comment, clip.string());
  const ConfigNode* request = node.find("request");
  return request ? request->get_string("prompt", "") : "";
}

std::vector<std::string> given_captions(const fs::path& file, const std::vector<std::string>& clips) {
  const CaptionFile captions = load_caption_file(file);
  if (captions.by_file.empty() && captions.in_order.size() != clips.size()) {
    throw ConfigError(
        fmt::format("--captions {}: {} captions for {} clips", file.string(), captions.in_order.size(), clips.size()));
  }
  std::vector<std::string> found;
  for (size_t i = 0; i < clips.size(); ++i) {
    if (captions.by_file.empty()) {
      found.push_back(captions.in_order[i]);
      continue;
    }
    const auto at = captions.by_file.find(fs::path(clips[i]).filename().string());
    if (at == captions.by_file.end()) {
      throw ConfigError(fmt::format("--captions {}: none for {}", file.string(), clips[i]));
    }
    found.push_back(at->second);
  }
  return found;
}

sprites::ClipPixels read_pixels(const fs::path& file) {
  const at::Tensor frames = video::read_all_frames(file).contiguous();
  return sprites::from_bytes({frames.const_data_ptr<uint8_t>(), static_cast<size_t>(frames.numel())}, frames.size(0),
                             frames.size(1), frames.size(2));
}

// Read with as many objects as the caption names; without a caption, with the two that there may be.
CheckedClip check_clip(const std::string& name, const sprites::ClipPixels& pixels, const std::string& caption) {
  CheckedClip checked{.name = name, .caption = caption, .reading = {}, .verdict = {}};
  sprites::NamedAttributes named;
  try {
    named = sprites::parse_caption(caption);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: {}", name, error.what()));
  }
  checked.reading = sprites::read_clip(pixels, named.objects.size() == 1 ? 1 : 2);
  if (!caption.empty()) checked.verdict = sprites::judge(checked.reading, named);
  return checked;
}

std::vector<CheckedClip> check_files(const std::vector<std::string>& files, const ConfigNode& effective,
                                     ProgressLine& line) {
  const std::string captions_file = effective.get_string("captions", "");
  std::vector<std::string> captions;
  if (!captions_file.empty()) captions = given_captions(captions_file, files);
  std::vector<CheckedClip> checked;
  for (size_t i = 0; i < files.size(); ++i) {
    stop_if_interrupted();
    const std::string caption = captions.empty() ? caption_in(files[i]) : captions[i];
    checked.push_back(check_clip(files[i], read_pixels(files[i]), caption));
    line.show_count("check", static_cast<int64_t>(i + 1), static_cast<int64_t>(files.size()));
  }
  return checked;
}

std::vector<CheckedClip> check_rendered(int64_t count, const ConfigNode& effective, ProgressLine& line) {
  const sprites::ClipView view = view_of(effective);
  const uint64_t seed = seed_of(effective);
  const double noise = effective.get_number("noise", 0), blur = effective.get_number("blur", 0);
  std::vector<CheckedClip> checked;
  for (int64_t index = 0; index < count; ++index) {
    stop_if_interrupted();
    const auto at = static_cast<uint64_t>(index);
    const sprites::Scene scene = sprites::draw_scene(seed, at, scene_options(effective));
    sprites::ClipPixels pixels =
        sprites::from_planes(sprites::render(scene, view), view.frames, view.height, view.width);
    if (blur > 0) sprites::blur(pixels, blur);
    if (noise > 0) sprites::add_noise(pixels, noise, seed, at);
    // All attributes are named, whatever the scene's form.
    checked.push_back(
        check_clip(fmt::format("index {}", index), pixels, sprites::caption(scene, sprites::CaptionForm::kFull)));
    line.show_count("check", index + 1, count);
  }
  return checked;
}

// Flags that say nothing about the kind of input that was given.
void refuse_idle_flags(const ConfigNode& flags, bool has_files) {
  const std::vector<const char*> of_files = {"captions"};
  const std::vector<const char*> of_rendered = {"num_frames",  "height",   "width", "seed",
                                                "two_objects", "held_out", "noise", "blur"};
  for (const char* key : has_files ? of_rendered : of_files) {
    if (const ConfigNode* given = flags.find(key)) {
      throw ConfigError(
          fmt::format("{}: for {} only", given->origin(), has_files ? "clips that --rendered N makes" : "files"));
    }
  }
}

}  // namespace

int run_sprites_clips(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const sprites::ClipView view = view_of(effective);
  const bool is_lossless = effective.get_bool("lossless", false);
  const std::string extension = is_lossless ? ".mkv" : ".mp4";
  const video::VideoOptions options = {.height = view.height,
                                       .width = view.width,
                                       .fps = {.numerator = kFps},
                                       .pix_fmt = effective.get_string("pix_fmt", ""),
                                       .is_lossless = is_lossless};
  const std::string target = effective.get_string("output", "");
  if (target.empty()) throw ConfigError("-o DIR must be given");
  video::check_video_options("clip" + extension, options);
  const std::vector<sprites::Scene> scenes = scenes_of(effective);
  OutputFolder folder(target);
  ProgressLine line(effective.get_bool("quiet", false));
  std::string prompts, captions;
  for (size_t i = 0; i < scenes.size(); ++i) {
    stop_if_interrupted();
    const std::string caption = sprites::caption(scenes[i]), name = fmt::format("{:05}{}", i, extension);
    at::Tensor clip = at::empty({3, view.frames, view.height, view.width}, at::kFloat);
    sprites::render(scenes[i], view, sprites::planes(clip.mutable_data_ptr<float>(), view));
    const auto writer = video::open_video_writer(folder.path() / name, options);
    writer->write(video::to_frames(clip));
    writer->set_comment(comment_of(caption));
    writer->close();
    prompts += caption + "\n";
    captions += weights::to_json(
                    ConfigNode::map({{"file", ConfigNode::string(name)}, {"caption", ConfigNode::string(caption)}}),
                    /*indent=*/-1) +
                "\n";
    line.show_count("clip", static_cast<int64_t>(i + 1), static_cast<int64_t>(scenes.size()));
  }
  write_file(folder.path() / "prompts.txt", prompts);
  write_file(folder.path() / kCaptionsFile, captions);
  folder.publish();
  line.finish();
  log_info("{}: {} clips, {} frames {}x{}", target, scenes.size(), view.frames, view.width, view.height);
  return 0;
}

int run_sprites_check(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const std::vector<std::string>& files = invocation.positionals.at("FILE");
  const int64_t rendered = effective.get_integer("rendered", 0);
  if (files.empty() == (rendered == 0)) throw ConfigError("files to check, or --rendered N: one of them must be given");
  refuse_idle_flags(invocation.flags, !files.empty());
  const std::string json = effective.get_string("json", "");
  if (!json.empty() && json != "-") pipelines::check_output_file(json, effective.get_bool("overwrite", false));
  ProgressLine line(effective.get_bool("quiet", false));
  const std::vector<CheckedClip> checked =
      rendered > 0 ? check_rendered(rendered, effective, line) : check_files(files, effective, line);
  line.finish();
  const std::string text =
      json == "-" ? report_json(checked) : report_text(checked, /*lists_right_ones=*/rendered == 0);
  std::fputs(text.c_str(), stdout);
  if (!json.empty() && json != "-") write_file(json, report_json(checked));
  return 0;
}

}  // namespace strobe::tools
