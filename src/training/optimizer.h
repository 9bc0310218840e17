// Muon for matrices, AdamW for everything else, and a moving average of the weights.
//
// Muon      The momentum (Nesterov, 0.95) of a matrix, kernels flattened to [out, in * k], is orthogonalised by
//           Newton-Schulz steps with the coefficients 3.4445, -4.7750, 2.0315, and its update scaled by
//           0.2 sqrt(max(rows, columns)): the size that AdamW's updates have.
// AdamW     Decoupled weight decay; bias-corrected moments.
// Sources   Muon: github KellerJordan/Muon, and arXiv 2502.16982 for the scale; AdamW: arXiv 1711.05101.
// Average   EMA: w' += (1 - d) (w - w'), d = min(decay, (1 + k) / (10 + k)) at the k-th update.
// State     Tensors by name, for checkpoints: the same state and gradients give the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/trainable_model.h"

namespace strobe::training {

using models::NamedTensors;

struct OptimizerOptions {
  double learning_rate = 2.5e-3;
  double momentum = 0.95;  // Muon
  int newton_schulz_steps = 4;
  std::array<double, 2> betas = {0.9, 0.98};  // AdamW
  double epsilon = 1e-8;
  double weight_decay = 0;
  double largest_gradient_norm = 1;  // of all gradients together; 0: not clipped
};

// The orthogonal factor of a matrix, nearly: singular values of the result lie between 0.7 and 1.2 or so.
at::Tensor orthogonalised(const at::Tensor& matrix, int steps);

class Optimizer {
 public:
  // The leaves that are trained, by name, and which of them are matrices (Muon's).
  Optimizer(NamedTensors weights, const std::function<bool(const std::string&, const at::Tensor&)>& is_matrix,
            const OptimizerOptions& options);

  // Clips the gradients, updates the weights in place with `scale` times the learning rate, and forgets the gradients. A
  // weight without a gradient stays. Returns the norm of all gradients before clipping; where that is not finite, nothing
  // is updated.
  double step(double scale);
  void forget_gradients();

  const NamedTensors& weights() const { return weights_; }
  // float32 tensors of the moments, and "steps" int64 [1].
  NamedTensors state() const;
  void set_state(const NamedTensors& state);

 private:
  struct Row {
    std::string name;
    at::Tensor weight, first, second;  // second: AdamW's only
    bool is_matrix = false;
  };
  void update_matrix(Row& row, const at::Tensor& gradient, double rate) const;
  void update_moments(Row& row, const at::Tensor& gradient, double rate) const;

  NamedTensors weights_;
  OptimizerOptions options_;
  std::vector<Row> rows_;
  int64_t steps_ = 0;
};

class MovingAverage {
 public:
  MovingAverage(const NamedTensors& weights, double decay);
  void update(const NamedTensors& weights);
  const NamedTensors& weights() const { return average_; }
  int64_t updates() const { return updates_; }
  void set(const NamedTensors& average, int64_t updates);

 private:
  NamedTensors average_;
  double decay_;
  int64_t updates_ = 0;
};

}  // namespace strobe::training
