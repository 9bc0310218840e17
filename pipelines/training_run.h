// A training run: a recipe file, a folder in which it happens, and everything between the two.
//
// Folder    recipe.yaml (what was asked, as read), tokenizer/, log.jsonl (a line per report, appended), checkpoints
//           (training/checkpoint.h), samples/NAME.png (strips), model/ (diffusers layout, replaced whenever samples are
//           made: usable at any time), lora.safetensors after a LoRA stage.
// Contract  One process at a time. A run that is killed goes on from its last checkpoint with `resumes`; on a CPU with as
//           many threads it then gives the bits it would have given. The first interruption writes a checkpoint and ends.
// Errors    ConfigError for files and folders, IoError for a disk that is full (the last checkpoint stays), Error for a
//           loss that is not finite (likewise), WeightError for checkpoints.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "pipelines/pipeline.h"
#include "training/trainer.h"

namespace strobe::pipelines {

// A training file with everything decided.
struct TrainingPlan {
  training::Recipe recipe;
  std::string text;  // canonical, for recipe.yaml and the hash
  double checkpoint_minutes = 5, sample_minutes = 20, log_seconds = 20;
  int sample_prompts = 12, sample_steps = 16;
  double sample_guidance_scale = 4;
};

// ConfigError with place, key and what was expected.
TrainingPlan load_training_plan(const std::filesystem::path& file);

struct TrainingOptions {
  std::filesystem::path folder;
  bool resumes = false;
  Device device;
  double most_minutes = 0;  // then a checkpoint, and the end; 0: until all stages are done
  int64_t most_steps = 0;   // likewise
};

// Means over the steps since the last report.
struct TrainingReport {
  std::string stage;
  size_t stage_index = 0, stages = 0;
  int64_t step = 0, samples = 0, stage_samples = 0;
  double loss = 0, gradient_norm = 0, rate = 0;
  double samples_per_second = 0, milliseconds = 0, drawing_ratio = 0, optimizer_ratio = 0;
  double gigaflops = 0;    // per second over whole steps; 0 where a stage does not count them
  double eta_seconds = 0;  // of the stage
  std::vector<std::pair<std::string, double>> terms;
};

// What is measured when samples are made.
struct SampleReport {
  std::string stage;
  int64_t step = 0, samples = 0;
  std::filesystem::path strip;
  std::vector<std::pair<std::string, double>> scores;  // psnr_db; validation_loss, colour, shape, ... (shares)
};

struct TrainingEvents {
  std::function<void(const TrainingReport& report)> on_report;
  std::function<void(const SampleReport& report)> on_samples;
  std::function<void(const std::string& sentence)> on_note;
  std::function<bool()> is_interrupted;
};

enum class TrainingEnd { kDone, kStopped, kInterrupted };
TrainingEnd run_training(const TrainingPlan& plan, const TrainingOptions& options, const TrainingEvents& events);

// The folder as diffusers and `--model` read it; replaces what is there. Weights in `dtype`, the tokenizer as given.
void export_model(const training::Trainer& trainer, const std::filesystem::path& tokenizer,
                  const std::filesystem::path& folder, const std::string& note, at::ScalarType dtype);

}  // namespace strobe::pipelines
