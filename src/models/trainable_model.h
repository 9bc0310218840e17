// A model as training sees it: its weights by name, and its parts bound to tensors that change.
//
// Contract  Parts are named as on disk ("transformer", "text_encoder", "vae"). The bound objects use the given tensors
//           themselves: where these want gradients, autograd reaches them; where they are changed in place, objects made
//           before are stale. Binding is cheap: it is done for each step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/dit_model.h"
#include "models/model_folder.h"
#include "models/random_checkpoint.h"
#include "models/text/text_encoder.h"
#include "models/vae/clip_codec.h"
#include "weights/weight_patches.h"

namespace strobe::models {

using NamedTensors = std::map<std::string, at::Tensor>;

// Per channel, over the latents of real clips.
struct LatentStatistics {
  std::vector<double> mean, deviation;  // [z]
};

class TrainableModel {
 public:
  virtual ~TrainableModel() = default;
  virtual const ModelInfo& info() const = 0;
  virtual ModelWork compute_work(const WorkQuery& query) const = 0;
  virtual std::vector<std::string> parts() const = 0;
  // float32 on the CPU: what the folder holds, or fresh ones as the part's papers draw them, a function of the seed.
  virtual NamedTensors initial_weights(const std::string& part, uint64_t seed) const = 0;
  virtual LatentStatistics latent_statistics() const = 0;

  virtual std::unique_ptr<DiTModel> bind_dit(const NamedTensors& weights, at::ScalarType dtype, at::Device device,
                                             std::shared_ptr<const weights::WeightPatches> patches) const = 0;
  virtual std::unique_ptr<TextEncoder> bind_text_encoder(const NamedTensors& weights, at::ScalarType dtype,
                                                         at::Device device) const = 0;
  virtual std::unique_ptr<ClipCodec> bind_codec(const NamedTensors& weights, at::ScalarType dtype,
                                                at::Device device) const = 0;
  // Weights of the blocks' linear layers, which Muon updates; everything else is AdamW's (sprites.md 6 and 8).
  virtual bool is_matrix(const std::string& part, const std::string& name, const at::Tensor& weight) const = 0;

  // A folder as published ones, weights in `dtype`; its tokenizer is the caller's to write.
  virtual CheckpointFiles files(const LatentStatistics& statistics, const std::string& note,
                                at::ScalarType dtype) const = 0;
};

// An architecture that is known without weights, or a model folder. ConfigError for anything else, and for models whose
// training is not supported (two experts).
std::unique_ptr<TrainableModel> open_trainable_model(const std::string& name_or_folder);

}  // namespace strobe::models
