// What a run in training makes when it is asked: the autoencoder its reconstructions, the transformer clips of held-out
// captions, through the same pipeline as generate, from the folder that it exports.
#pragma once

#include "pipelines/training_run.h"

namespace strobe::pipelines {

// Writes samples/STAGE-SAMPLES.png, model/ and, in a LoRA stage, lora.safetensors. `at`: the stage that was trained last,
// and how far.
SampleReport make_samples(const training::Trainer& trainer, const training::Position& at, const TrainingPlan& plan,
                          const TrainingOptions& options);

// The first `count` clips of the last stage's largest kind as samples/preview-NNNNN.mp4, captions in their comment tags.
// Returns the captions.
std::vector<std::string> write_preview(const TrainingPlan& plan, const std::filesystem::path& folder, int64_t count,
                                       int64_t fps);

}  // namespace strobe::pipelines
