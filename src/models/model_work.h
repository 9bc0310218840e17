// The work of a run as a model's own layer shapes say it, so that a pipeline can add it up without knowing the model.
//
// Units    FLOPs with a multiply-add as 2, as float64 (they pass 2^53). Matrix products, attention and convolutions
//          count; norms, activations and sums do not. Bytes of activations are estimates from the shapes of the tensors
//          that live at the same time.
// Limits   Activations are those of one forward at a time; what LibTorch's kernels allocate inside is not in them.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/token_grid.h"

namespace strobe::models {

struct WorkQuery {
  int64_t num_frames = 0, height = 0, width = 0;  // pixels; a size that the model takes
  int64_t text_tokens = 0;                        // of one prompt, end token included, at most the padded ones
  int64_t element_bytes = 4;                      // of the transformer's and the text encoder's activations
};

// One forward of the transformer for one branch.
struct ForwardWork {
  TokenGrid grid;
  int64_t layers = 0, heads = 0, head_width = 0;
  double self_attention_flops = 0;   // of all query-key pairs: a sparse method scales it by its density
  double cross_attention_flops = 0;  // keys: the text, or more exactly its real tokens and one row for the padding
  double linear_flops = 0;
  double prepare_flops = 0;  // once a prompt and expert: the text's way through the model's own layers, keys and values
  int64_t activation_bytes = 0;
  int64_t prompt_bytes = 0;  // kept of one prompt between the steps
};

struct TextWork {
  double flops = 0;  // of one prompt
  int64_t activation_bytes = 0;
  int64_t weight_bytes = 0;  // held at the same time while it runs
};

// One part of the decoder: what stands between two sizes of the picture.
struct DecodeLevel {
  std::string name;
  double flops = 0;      // as the published layers are defined
  double run_flops = 0;  // as we compute them: taps that meet only zeros are left out, upsampling is folded
};

struct DecodeWork {
  std::vector<DecodeLevel> levels;  // in running order
  int64_t activation_bytes = 0;     // float32, without tiling
};

struct ModelWork {
  ForwardWork forward;
  TextWork text;
  DecodeWork decode;
};

// A part's tensors as they are stored.
struct StoredPart {
  std::string name;  // "transformer", "transformer_2", "text_encoder", "vae"
  int64_t parameters = 0;
  std::vector<std::pair<at::ScalarType, int64_t>> bytes;  // by dtype, most first

  int64_t total_bytes() const {
    int64_t sum = 0;
    for (const auto& [dtype, count] : bytes) sum += count;
    return sum;
  }
};

}  // namespace strobe::models
