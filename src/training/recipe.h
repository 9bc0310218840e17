// What is to be trained, in which order, on what: the whole of a training run but its machine and its files.
//
// A stage trains one part (or the transformer and the text encoder together) for a number of samples. Everything that is
// drawn is a function of (seed, stage, sample), and the learning rate of the samples seen, never of time: a run that was
// cut goes on as if it had not been.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/schedule.h"
#include "training/optimizer.h"

namespace strobe::training {

enum class Trains { kAutoencoder, kTransformer, kTransformerAndText, kLora };

// Clips of one size that make up the batch of a step.
struct ClipKind {
  enum class Content { kScenes, kLeaves };  // training/sprites/render.h
  Content content = Content::kScenes;
  int64_t frames = 1, height = 64, width = 64;  // what is trained on
  int64_t zoom = 1;  // clips are drawn this many times larger and a random window of the size above is cut out
  int64_t batch_size = 16;
  double share = 1;  // of the steps, among the kinds of a stage
};

enum class Decay { kNone, kCosine, kLinear };

struct RateSchedule {
  int64_t warmup_steps = 40;
  Decay decay = Decay::kLinear;
  double decay_share = 0.35;  // of the samples, at the end; cosine: all of them
  double final_share = 0.05;  // of the learning rate, at the end
};
// The factor of the learning rate: `step` counts from 0, `seen` of `samples` have been trained on.
double rate_at(const RateSchedule& schedule, int64_t step, int64_t seen, int64_t samples);

struct LoraRecipe {
  int64_t rank = 8;
  double alpha = 8;
  std::vector<std::string> targets = {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"};
};

struct StageRecipe {
  std::string name;
  Trains trains = Trains::kTransformer;
  int64_t samples = 0;
  std::vector<ClipKind> clips;
  OptimizerOptions optimizer;
  RateSchedule rate;
  double average_decay = 0.999;
  // Autoencoder: 4 MSE + 0.3 L1 + 0.2 L1 of differences + kl_weight * KL per latent element.
  double kl_weight = 1e-4;
  // Transformer.
  double caption_dropout = 0.1;
  double flow_shift = 3;
  std::vector<attention::AttentionRule> attention;  // empty: dense
  LoraRecipe lora;
};

struct Recipe {
  std::string model;  // a known architecture, or a folder whose weights are gone on with
  uint64_t seed = 0;
  std::vector<StageRecipe> stages;
  int64_t statistics_clips = 256;  // of the last stage's size, for latents_mean and latents_std
  // Of all that the weights depend on up to the end of each stage. A checkpoint belongs to a recipe whose stages up to its
  // own are the same: later ones may still change.
  std::vector<std::string> stage_hashes;
};

}  // namespace strobe::training
