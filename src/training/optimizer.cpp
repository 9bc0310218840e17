#include "training/optimizer.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"

namespace strobe::training {
namespace {

// Quintic coefficients that raise small singular values fastest (Muon).
constexpr double kLinear = 3.4445, kCubic = -4.7750, kQuintic = 2.0315;
constexpr double kUpdateScale = 0.2;  // root mean square of AdamW's updates

}  // namespace

at::Tensor orthogonalised(const at::Tensor& matrix, int steps) {
  const bool is_tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = is_tall ? matrix.t() : matrix;
  x = x / (at::linalg_vector_norm(x) + 1e-7);
  for (int i = 0; i < steps; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    const at::Tensor polynomial = at::addmm(gram, gram, gram, kCubic, kQuintic);
    x = at::addmm(x, polynomial, x, kLinear, 1);
  }
  return is_tall ? x.t() : x;
}

Optimizer::Optimizer(NamedTensors weights, const std::function<bool(const std::string&, const at::Tensor&)>& is_matrix,
                     const OptimizerOptions& options)
    : weights_(std::move(weights)), options_(options) {
  for (const auto& [name, weight] : weights_) {
    Row row{.name = name, .weight = weight, .first = at::zeros_like(weight, weight.options().requires_grad(false))};
    row.is_matrix = is_matrix(name, weight);
    if (!row.is_matrix) row.second = at::zeros_like(row.first);
    rows_.push_back(std::move(row));
  }
}

void Optimizer::forget_gradients() {
  for (Row& row : rows_) row.weight.mutable_grad().reset();
}

void Optimizer::update_matrix(Row& row, const at::Tensor& gradient, double rate) const {
  row.first.mul_(options_.momentum).add_(gradient);
  const at::Tensor looking_ahead = gradient.add(row.first, options_.momentum).flatten(1);
  const at::Tensor update = orthogonalised(looking_ahead, options_.newton_schulz_steps);
  const auto side = static_cast<double>(std::max(update.size(0), update.size(1)));
  if (options_.weight_decay > 0) row.weight.mul_(1 - rate * options_.weight_decay);
  row.weight.add_(update.reshape(row.weight.sizes()), -rate * kUpdateScale * std::sqrt(side));
}

void Optimizer::update_moments(Row& row, const at::Tensor& gradient, double rate) const {
  const auto [beta1, beta2] = options_.betas;
  const auto steps = static_cast<double>(steps_);
  row.first.lerp_(gradient, 1 - beta1);
  row.second.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
  const at::Tensor deviation = (row.second / (1 - std::pow(beta2, steps))).sqrt_().add_(options_.epsilon);
  if (options_.weight_decay > 0) row.weight.mul_(1 - rate * options_.weight_decay);
  row.weight.addcdiv_(row.first, deviation, -rate / (1 - std::pow(beta1, steps)));
}

double Optimizer::step(double scale) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> norms;
  for (const Row& row : rows_) {
    if (row.weight.grad().defined()) norms.push_back(at::linalg_vector_norm(row.weight.grad()));
  }
  STROBE_CHECK(!norms.empty(), "optimizer: no weight has a gradient (of {})", rows_.size());
  const double norm = at::linalg_vector_norm(at::stack(norms)).item<double>();
  if (!std::isfinite(norm)) {
    forget_gradients();
    return norm;
  }
  const double most = options_.largest_gradient_norm;
  const double clip = most > 0 && norm > most ? most / norm : 1;
  ++steps_;
  for (Row& row : rows_) {
    if (!row.weight.grad().defined()) continue;
    const at::Tensor gradient = clip < 1 ? row.weight.grad() * clip : row.weight.grad();
    if (row.is_matrix) {
      update_matrix(row, gradient, scale * options_.learning_rate);
    } else {
      update_moments(row, gradient, scale * options_.learning_rate);
    }
  }
  forget_gradients();
  return norm;
}

NamedTensors Optimizer::state() const {
  NamedTensors state = {{"steps", at::full({1}, steps_, at::kLong)}};
  for (const Row& row : rows_) {
    state["first." + row.name] = row.first;
    if (row.second.defined()) state["second." + row.name] = row.second;
  }
  return state;
}

void Optimizer::set_state(const NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const auto take = [&](const std::string& name, at::Tensor& into) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.sizes() != into.sizes()) {
      throw WeightError(fmt::format("optimizer state: {}: {}", name,
                                    found == state.end() ? "missing" : "has another shape than its weight"));
    }
    into.copy_(found->second);
  };
  at::Tensor steps = at::zeros({1}, at::kLong);
  take("steps", steps);
  steps_ = steps.item<int64_t>();
  for (Row& row : rows_) {
    take("first." + row.name, row.first);
    if (row.second.defined()) take("second." + row.name, row.second);
  }
}

MovingAverage::MovingAverage(const NamedTensors& weights, double decay) : decay_(decay) {
  for (const auto& [name, weight] : weights) average_[name] = weight.detach().clone();
}

void MovingAverage::update(const NamedTensors& weights) {
  const at::NoGradGuard no_grad;
  const auto k = static_cast<double>(updates_++);
  const double decay = std::min(decay_, (1 + k) / (10 + k));
  for (auto& [name, average] : average_) average.lerp_(weights.at(name).detach(), 1 - decay);
}

void MovingAverage::set(const NamedTensors& average, int64_t updates) {
  for (auto& [name, tensor] : average_) {
    const auto found = average.find(name);
    if (found == average.end() || found->second.sizes() != tensor.sizes()) {
      throw WeightError(fmt::format("moving average: {}: missing, or of another shape", name));
    }
    tensor.copy_(found->second);
  }
  updates_ = updates;
}

}  // namespace strobe::training
