#include "pipelines/training_samples.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/output_file.h"
#include "training/sprites/caption.h"
#include "training/sprites/checker/checker.h"
#include "video/frames.h"
#include "video/video_writer.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;
namespace sprites = training::sprites;
using training::ClipKind;

constexpr const char* kTrainingNote = "in training: clips may not show what the prompt says";
constexpr int64_t kStripRows = 6, kStripColumns = 5;
constexpr int64_t kValidationClips = 16;

ClipKind largest_kind(const std::vector<ClipKind>& kinds) {
  const auto pixels = [](const ClipKind& kind) {
    const bool is_scene = kind.content == ClipKind::Content::kScenes;
    return std::pair{is_scene, kind.frames * kind.height * kind.width};
  };
  return *std::max_element(kinds.begin(), kinds.end(),
                           [&](const auto& a, const auto& b) { return pixels(a) < pixels(b); });
}

// Rows of clips [3, F, H, W] in [-1, 1], each as frames spread over its length.
void write_strip(const fs::path& path, const std::vector<at::Tensor>& rows) {
  std::vector<at::Tensor> lines;
  for (const at::Tensor& clip : rows) {
    const int64_t frames = clip.size(1), columns = std::min(kStripColumns, frames);
    std::vector<at::Tensor> cells;
    for (int64_t c = 0; c < columns; ++c) {
      cells.push_back(clip.select(1, columns == 1 ? 0 : c * (frames - 1) / (columns - 1)));
    }
    lines.push_back(at::cat(cells, 2));
  }
  const at::Tensor picture = at::cat(lines, 1).unsqueeze(1);  // [3, 1, H, W]
  const auto writer = video::open_video_writer(path, {.height = picture.size(2), .width = picture.size(3)});
  writer->write(video::to_frames(picture));
  writer->close();
}

sprites::Reading read(const at::Tensor& clip) {
  const at::Tensor planes = clip.to(at::kFloat).contiguous();
  return sprites::read_clip(sprites::from_planes({planes.const_data_ptr<float>(), static_cast<size_t>(planes.numel())},
                                                 planes.size(1), planes.size(2), planes.size(3)));
}

// Shares of what captions name that a clip shows.
class Scores {
 public:
  void add(const std::string& caption, const at::Tensor& clip) {
    sprites::NamedAttributes named = sprites::parse_caption(caption);
    if (clip.size(1) == 1) {
      for (sprites::NamedObject& object : named.objects) object.motion.reset();  // a still shows none
    }
    const sprites::Verdict verdict = sprites::judge(read(clip), named);
    count("present", verdict.is_present);
    count("size", verdict.size);
    count("colour", verdict.colour);
    count("shape", verdict.shape);
    count("motion", verdict.motion);
    count("background", verdict.background);
    count("all", verdict.is_all_right());
  }
  std::vector<std::pair<std::string, double>> shares() const {
    std::vector<std::pair<std::string, double>> result;
    for (const auto& [name, row] : rows_) result.emplace_back(name, row.first / row.second);
    return result;
  }

 private:
  void count(const std::string& name, const std::optional<bool>& is_right) {
    if (!is_right) return;
    auto& [right, all] = rows_[name];
    right += *is_right ? 1 : 0;
    all += 1;
  }
  std::map<std::string, std::pair<double, double>> rows_;
};

// [3, F, H, W] in [-1, 1].
at::Tensor decode(const models::Vae& vae, const at::Tensor& latents) {
  std::vector<at::Tensor> parts;
  vae.decode(latents[0], {}, [&](const at::Tensor& frames) { parts.push_back(frames.to(at::kCPU).clone()); });
  return at::cat(parts, 1);
}

void sample_clips(const training::Trainer& trainer, const training::StageRecipe& stage, const TrainingPlan& plan,
                  const TrainingOptions& options, const fs::path& strip, SampleReport& report) {
  const ClipKind kind = largest_kind(stage.clips);
  report.scores.emplace_back("validation_loss", trainer.validation_loss(kind, kValidationClips));
  auto folder = models::open_model_folder(options.folder / "model");
  const auto vae = folder->load_vae(options.device.dtype, options.device.device);
  Pipeline pipeline(std::move(folder), {.device = options.device, .embedding_cache = {}, .embedding_key = {}});
  const std::vector<sprites::Scene> scenes = sprites::evaluation_scenes();
  std::vector<Job> jobs;
  jobs.reserve(static_cast<size_t>(plan.sample_prompts));
  for (int i = 0; i < plan.sample_prompts; ++i) {
    Request request;
    request.prompt = sprites::caption(scenes.at(static_cast<size_t>(i)));
    request.num_frames = kind.frames, request.height = kind.height, request.width = kind.width;
    request.num_inference_steps = plan.sample_steps;
    request.guidance_scale = plan.sample_guidance_scale;
    request.seed = static_cast<uint64_t>(i);
    if (stage.trains == training::Trains::kLora) request.loras = {{.path = options.folder / "lora.safetensors"}};
    jobs.push_back(resolve_clip(request, pipeline.info()));
  }
  std::vector<const Job*> announced;
  announced.reserve(jobs.size());
  for (const Job& job : jobs) announced.push_back(&job);
  pipeline.announce(announced);
  Scores scores;
  std::vector<at::Tensor> rows;
  for (const Job& job : jobs) {
    const at::Tensor clip = decode(*vae, pipeline.generate(job, {.keeps_parts = true}, {}).latents);
    scores.add(job.request.prompt, clip);
    if (static_cast<int64_t>(rows.size()) < kStripRows) rows.push_back(clip);
  }
  write_strip(strip, rows);
  for (const auto& score : scores.shares()) report.scores.push_back(score);
}

void sample_reconstructions(const training::Trainer& trainer, const training::StageRecipe& stage, const fs::path& strip,
                            SampleReport& report) {
  const ClipKind kind = largest_kind(stage.clips);
  at::Tensor clips, reconstructions;
  report.scores.emplace_back("psnr_db", trainer.reconstruct(kind, kValidationClips, clips, reconstructions));
  std::vector<at::Tensor> rows;
  for (int64_t i = 0; i < kStripRows / 2; ++i) {
    rows.push_back(clips[i]);
    rows.push_back(reconstructions[i]);
  }
  write_strip(strip, rows);
}

fs::path samples_folder(const fs::path& run) {
  fs::path folder = run / "samples";
  make_folders(folder);
  return folder;
}

}  // namespace

std::vector<std::string> write_preview(const TrainingPlan& plan, const fs::path& folder, int64_t count, int64_t fps) {
  const training::StageRecipe& stage = plan.recipe.stages.back();
  const ClipKind kind = largest_kind(stage.clips);
  std::vector<std::string> captions;
  captions.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const training::ClipBatch clip = draw_clips(kind, training::stage_seed(plan.recipe.seed, stage.name), i, 1);
    const auto writer =
        video::open_video_writer(samples_folder(folder) / fmt::format("preview-{:05}.mp4", i),
                                 {.height = kind.height, .width = kind.width, .fps = {.numerator = fps}});
    writer->write(video::to_frames(clip.pixels[0]));
    writer->set_comment(clip.captions[0]);
    writer->close();
    captions.push_back(clip.captions[0]);
  }
  return captions;
}

SampleReport make_samples(const training::Trainer& trainer, const training::Position& at, const TrainingPlan& plan,
                          const TrainingOptions& options) {
  const at::NoGradGuard no_grad;
  const training::StageRecipe& stage = plan.recipe.stages.at(at.stage);
  SampleReport report{.stage = stage.name, .step = at.step, .samples = at.samples};
  report.strip = samples_folder(options.folder) / fmt::format("{}-{:08}.png", stage.name, at.samples);
  export_model(trainer, options.folder / "tokenizer", options.folder / "model",
               trainer.is_done() ? std::string() : kTrainingNote, at::kBFloat16);
  if (const training::NamedTensors lora = trainer.lora_tensors(); !lora.empty()) {
    weights::save_safetensors(options.folder / "lora.safetensors", lora, {{"format", "pt"}});
  }
  if (stage.trains == training::Trains::kAutoencoder) {
    sample_reconstructions(trainer, stage, report.strip, report);
  } else {
    sample_clips(trainer, stage, plan, options, report.strip, report);
  }
  return report;
}

}  // namespace strobe::pipelines
