// Low-rank additions that are trained: W + (alpha / rank) B A, with A [rank, in] and B [out, rank].
//
// Files     Under the names of diffusers and peft, "transformer.<module>.lora_A.weight"; alpha / rank is multiplied into B,
//           so that every reader, with or without an alpha, adds the same.
// Source    arXiv 2106.09685: A drawn uniformly, B zero, so that training begins with the model as it is.
#pragma once

#include <memory>

#include "training/recipe.h"
#include "weights/weight_patches.h"

namespace strobe::training {

class LoraWeights {
 public:
  // Every 2-D weight of the transformer whose module name ends with one of the targets. ConfigError with the nearest
  // module where a target matches none.
  LoraWeights(const NamedTensors& transformer, const LoraRecipe& recipe, uint64_t seed, at::Device device);

  // The leaves: "blocks.0.attn1.to_q.lora_A" and "..lora_B".
  const NamedTensors& weights() const { return weights_; }
  // Adds the products to the transformer's weights as these are bound, recorded by autograd.
  std::shared_ptr<const weights::WeightPatches> patches(const NamedTensors& weights) const;
  // For a file: of `weights`, which has the names of weights().
  NamedTensors file_tensors(const NamedTensors& weights) const;

 private:
  NamedTensors weights_;
  double scale_;
};

}  // namespace strobe::training
