// Trains the parts of a model stage by stage, a step at a time.
//
// Weights   float32 masters; the arithmetic in the dtype of the options (bfloat16 on CUDA: weights are narrowed as they
//           are used, and gradients arrive in float32).
// Transformer  x = (1 - s) x0 + s e, s = shift u / (1 + (shift - 1) u), u ~ U(0, 1); timestep 1000 s; the target is the
//           velocity e - x0, the loss its mean square. Latents are normalised by the statistics of real clips, which
//           are measured once the autoencoder is done. Captions are left out with a given probability.
// Autoencoder  4 MSE + 0.3 L1 + 0.2 L1 of spatial differences + kl_weight * KL per latent element, posterior sampled.
// Stages    A stage begins with raw weights and a new average. Where a part is no longer trained by the next stage, its
//           average takes its place.
// Resume    A run that was saved and loaded gives the same bits as one that was not, on a CPU with the same threads.
// Errors    Error naming stage and step for a loss that is not finite; WeightError for checkpoints that do not fit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "training/clip_source.h"
#include "training/optimizer.h"
#include "training/recipe.h"
#include "training/recorded_attention.h"

namespace strobe::training {

struct TrainerOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  std::filesystem::path tokenizer;  // folder
};

struct Position {
  size_t stage = 0;
  int64_t step = 0;     // of the stage
  int64_t samples = 0;  // of the stage
};

struct StepReport {
  Position before;
  double loss = 0;
  double gradient_norm = 0;
  double rate = 0;  // of the learning rate
  int64_t samples = 0;
  double milliseconds = 0;
  double drawing_ms = 0;    // of it, for drawing and encoding the clips
  double optimizer_ms = 0;  // and for updating the weights
  double flops = 0;         // of the transformer, three times a forward; 0 where they are not counted
  std::vector<std::pair<std::string, double>> terms;  // of the loss
};

class Trainer {
 public:
  Trainer(Recipe recipe, const TrainerOptions& options);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  const Recipe& recipe() const;
  const models::TrainableModel& model() const;
  const Position& position() const;
  bool is_done() const;
  const StageRecipe& stage() const;  // of the position; the last one where all is done

  // Error "stage NAME, step N: the loss is nan" with nothing changed.
  StepReport step();

  // The weights to use: averages of what is trained, by part.
  const NamedTensors& weights(const std::string& part) const;
  models::LatentStatistics statistics() const;
  // PSNR in dB of the autoencoder over held-out clips of the kind, and what it makes of them [n, 3, F, H, W].
  double reconstruct(const ClipKind& kind, int64_t count, at::Tensor& clips, at::Tensor& reconstructions) const;
  // The mean loss of the transformer over fixed clips of held-out captions.
  double validation_loss(const ClipKind& kind, int64_t count) const;
  // What computed attention since the stage began, or since the run went on.
  std::vector<RecordedRow> attention_rows() const;
  // A and B of each module, under the names that --lora reads; empty outside a LoRA stage.
  NamedTensors lora_tensors() const;

  // All that a run needs to go on. See checkpoint.h for the file.
  NamedTensors state() const;
  void set_state(const NamedTensors& state);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace strobe::training
