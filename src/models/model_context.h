// What a model is handed besides its input: attention, block runner, and where in the run it is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attention/attention_function.h"
#include "models/block_runner.h"

namespace strobe::models {

// Sees intermediate tensors by name ("block0.attn1"); for tests and dumps. Must not change them.
using TensorProbe = std::function<void(const std::string& name, const at::Tensor& tensor)>;

struct ModelContext {
  attention::AttentionFunction& attention;
  BlockRunner& blocks;
  std::vector<Branch> branches;  // one per batch row
  int stage = 0;
  int step = 0;
  int steps = 1;
  int sample = 0;
  uint64_t seed = 0;
  int evaluation = 0;
  double sigma = 0;
  TensorProbe probe;  // may be empty
};

}  // namespace strobe::models
