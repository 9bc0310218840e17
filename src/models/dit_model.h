// Diffusion transformers: one call predicts the velocity of one or more branches laid along the batch.
//
// Contract  A model knows no pattern, guidance or schedule: all attention goes through context.attention, all blocks
//           through context.blocks. Rows of a batch are independent. Const and free of hidden state: what a run may
//           keep between calls (projected text) lives in PreparedConditioning. Where autograd records, nothing that it
//           needs is overwritten, and weights that want gradients get them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/token_grid.h"
#include "models/model_context.h"
#include "models/text/text_encoder.h"

namespace strobe::models {

struct Conditioning {
  TextEmbedding text;
  at::Tensor image_tokens;  // [n, image width] float32 of a vision encoder, or undefined
};

// Prompts after the model's own text layers, with what its blocks cache of them.
class PreparedConditioning {
 public:
  virtual ~PreparedConditioning() = default;
};

struct DiTInput {
  at::Tensor latents;                                               // [B, Cin, F, H, W] float32
  at::Tensor timesteps;                                             // [B], or [B, N] with one per token; float32
  std::vector<std::shared_ptr<PreparedConditioning>> conditioning;  // together one prompt per batch row
};

// Where a transformer's blocks wait for their turn.
enum class Residency {
  kLoaded,    // in the device's memory
  kStreamed,  // in the weights file
};

class DiTModel {
 public:
  virtual ~DiTModel() = default;
  virtual std::string name() const = 0;
  virtual int64_t in_channels() const = 0;
  virtual int64_t out_channels() const = 0;
  virtual int64_t layers() const = 0;
  // Tokens of latents [.., F, H, W]; ShapeError if the patch does not divide them.
  virtual TokenGrid grid(int64_t frames, int64_t height, int64_t width) const = 0;
  std::shared_ptr<PreparedConditioning> prepare(const Conditioning& conditioning) const {
    return prepare(std::vector<Conditioning>{conditioning});
  }
  // Prompts of consecutive batch rows.
  virtual std::shared_ptr<PreparedConditioning> prepare(const std::vector<Conditioning>& prompts) const = 0;
  virtual at::Tensor predict(const DiTInput& input, ModelContext& context) const = 0;  // [B, Cout, F, H, W] float32
};

}  // namespace strobe::models
