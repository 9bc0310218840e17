#include "models/wan/wan_trainable.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/noise.h"
#include "models/vae/wan_vae_whole.h"
#include "models/wan/wan.h"

namespace strobe::models {
namespace {

using weights::TensorSpec;

constexpr double kFirstGate = 0.25;
constexpr double kFirstLogVariance = -5;
constexpr double kTemporalNoise = 0.1;  // of the draws of LibTorch, on top of means and copies

// Draws in the order in which they are asked for; one for each part.
class Draws {
 public:
  explicit Draws(uint64_t seed) : noise_(seed) {}
  at::Tensor normal(const std::vector<int64_t>& shape, double deviation) { return next(shape).mul_(deviation); }
  // Uniform in [-bound, bound], through the normal distribution: one stream serves both.
  at::Tensor uniform(const std::vector<int64_t>& shape, double bound) {
    return next(shape).div_(std::sqrt(2.0)).erf_().mul_(bound);
  }

 private:
  at::Tensor next(const std::vector<int64_t>& shape) {
    const int64_t count = c10::multiply_integers(shape);
    constexpr int64_t kMultiple = 16;  // noise.h
    return noise_.next((count + kMultiple - 1) / kMultiple * kMultiple).narrow(0, 0, count).clone().view(shape);
  }
  NoiseStream noise_;
};

bool is_norm(const TensorSpec& spec) {
  return spec.name.ends_with(".gamma") ||
         (spec.name.find("norm") != std::string::npos && spec.name.ends_with(".weight"));
}

int64_t inputs_of(const std::vector<int64_t>& shape) { return c10::multiply_integers(shape) / shape[0]; }

// LibTorch's draw for linear layers and convolutions: U(-1/sqrt(inputs), 1/sqrt(inputs)), of biases too.
at::Tensor layer_draw(const TensorSpec& spec, const std::map<std::string, int64_t>& inputs, Draws& draws) {
  const std::string layer = spec.name.substr(0, spec.name.rfind('.'));
  return draws.uniform(spec.shape, 1.0 / std::sqrt(static_cast<double>(inputs.at(layer))));
}

std::map<std::string, int64_t> layer_inputs(const std::vector<TensorSpec>& specs) {
  std::map<std::string, int64_t> inputs;
  for (const TensorSpec& spec : specs) {
    if (spec.name.ends_with(".weight") && spec.shape.size() > 1) {
      inputs[spec.name.substr(0, spec.name.rfind('.'))] = inputs_of(spec.shape);
    }
  }
  return inputs;
}

NamedTensors draw_transformer(const WanConfig& config, uint64_t seed) {
  const std::vector<TensorSpec> specs = wan_parameters(config);
  const std::map<std::string, int64_t> inputs = layer_inputs(specs);
  Draws draws(seed);
  NamedTensors weights;
  for (const TensorSpec& spec : specs) {
    at::Tensor& tensor = weights[spec.name];
    if (is_norm(spec)) {
      tensor = at::ones(spec.shape);
    } else if (spec.name.ends_with("scale_shift_table")) {
      tensor = draws.normal(spec.shape, 1.0 / std::sqrt(static_cast<double>(config.width())));
      constexpr int64_t kRows = 6;
      if (spec.shape[1] == kRows) {
        for (const int64_t gate : {2, 5}) tensor.select(1, gate).add_(kFirstGate);
      }
    } else if (spec.name.starts_with("proj_out.") || spec.name.ends_with(".to_out.0.bias") ||
               (spec.name.ends_with(".bias") && spec.name.find("norm") != std::string::npos)) {
      tensor = at::zeros(spec.shape);
    } else {
      tensor = layer_draw(spec, inputs, draws);
      if (spec.name.ends_with(".to_out.0.weight")) tensor.div_(std::sqrt(static_cast<double>(config.layers)));
    }
  }
  return weights;
}

NamedTensors draw_text_encoder(const Umt5Config& config, uint64_t seed) {
  Draws draws(seed);
  const auto width = static_cast<double>(config.d_model), inner = static_cast<double>(config.num_heads * config.d_kv);
  const auto deviation = [&](const std::string& name) {
    if (name == "shared.weight") return 1.0;
    if (name.ends_with(".q.weight")) return 1.0 / std::sqrt(width * static_cast<double>(config.d_kv));
    if (name.ends_with(".o.weight")) return 1.0 / std::sqrt(inner);
    if (name.ends_with(".wo.weight")) return 1.0 / std::sqrt(static_cast<double>(config.d_ff));
    return 1.0 / std::sqrt(width);
  };
  NamedTensors weights;
  for (const TensorSpec& spec : umt5_parameters(config)) {
    weights[spec.name] = spec.shape.size() == 1 ? at::ones(spec.shape) : draws.normal(spec.shape, deviation(spec.name));
  }
  return weights;
}

// [out, in, 3, 1, 1]: on each output channel c, `shares` of the input channel c % in at the three frames.
at::Tensor temporal_kernel(const TensorSpec& spec, const std::array<double, 3>& shares, Draws& draws) {
  at::Tensor kernel = draws.uniform(spec.shape, kTemporalNoise / std::sqrt(static_cast<double>(inputs_of(spec.shape))));
  for (int64_t out = 0; out < spec.shape[0]; ++out) {
    for (int64_t tap = 0; tap < 3; ++tap) kernel[out][out % spec.shape[1]][tap] += shares[static_cast<size_t>(tap)];
  }
  return kernel;
}

NamedTensors draw_autoencoder(const WanVaeConfig& config, uint64_t seed) {
  const std::vector<TensorSpec> specs = wan_vae_parameters(config);
  const std::map<std::string, int64_t> inputs = layer_inputs(specs);
  Draws draws(seed);
  NamedTensors weights;
  for (const TensorSpec& spec : specs) {
    at::Tensor& tensor = weights[spec.name];
    const bool is_causal = spec.shape.size() == 5 && spec.shape[2] == 3 && spec.shape[3] == 3;
    // The projection of an attention begins at zero, so that the block passes its input on.
    const bool is_projection =
        spec.name.find(".attentions.") != std::string::npos && spec.name.find(".proj.") != std::string::npos;
    if (is_norm(spec)) {
      tensor = at::ones(spec.shape);
    } else if (is_projection || spec.name.ends_with(".time_conv.bias")) {
      tensor = at::zeros(spec.shape);
    } else if (spec.name.ends_with(".time_conv.weight")) {
      // Down: the mean of the two newest frames; up: the newest frame twice.
      const bool is_down = spec.shape[0] == spec.shape[1];
      tensor =
          temporal_kernel(spec, is_down ? std::array<double, 3>{0, 0.5, 0.5} : std::array<double, 3>{0, 0, 1}, draws);
    } else {
      tensor = layer_draw(spec, inputs, draws);
      if (is_causal) tensor.narrow(2, 0, 2).zero_();
    }
  }
  weights.at("quant_conv.bias").narrow(0, config.latent_channels, config.latent_channels).fill_(kFirstLogVariance);
  return weights;
}

class WanTrainable final : public TrainableModel {
 public:
  WanTrainable(WanSetup setup, StoredWeights stored) : setup_(std::move(setup)), stored_(std::move(stored)) {
    if (setup_.transformers.size() != 1) {
      throw ConfigError(fmt::format("{}: models of two experts cannot be trained", setup_.info.name));
    }
  }

  const ModelInfo& info() const override { return setup_.info; }
  ModelWork compute_work(const WorkQuery& query) const override { return compute_wan_work(setup_, query); }
  std::vector<std::string> parts() const override { return {"transformer", "text_encoder", "vae"}; }

  NamedTensors initial_weights(const std::string& part, uint64_t seed) const override {
    if (stored_) return stored_(part);
    if (part == "transformer") return draw_transformer(dit(), seed);
    if (part == "text_encoder") return draw_text_encoder(setup_.text_encoder, seed);
    STROBE_CHECK(part == "vae", "wan: no part '{}'", part);
    return draw_autoencoder(setup_.vae, seed);
  }

  LatentStatistics latent_statistics() const override { return {setup_.vae.latents_mean, setup_.vae.latents_std}; }

  std::unique_ptr<DiTModel> bind_dit(const NamedTensors& weights, at::ScalarType dtype, at::Device device,
                                     std::shared_ptr<const weights::WeightPatches> patches) const override {
    auto store = bind(weights, wan_parameters(dit()), "transformer");
    store.set_patches(std::move(patches));
    return make_wan_dit(dit(), store, dtype, device);
  }
  std::unique_ptr<TextEncoder> bind_text_encoder(const NamedTensors& weights, at::ScalarType dtype,
                                                 at::Device device) const override {
    return make_umt5(setup_.text_encoder, bind(weights, umt5_parameters(setup_.text_encoder), "text_encoder"), dtype,
                     device);
  }
  std::unique_ptr<ClipCodec> bind_codec(const NamedTensors& weights, at::ScalarType dtype,
                                        at::Device device) const override {
    return std::make_unique<WholeClipVae>(setup_.vae, bind(weights, wan_vae_parameters(setup_.vae), "vae"), dtype,
                                          device);
  }

  bool is_matrix(const std::string& part, const std::string& name, const at::Tensor& weight) const override {
    if (part == "vae") return weight.dim() > 1 && weight.size(0) > 1 && name.ends_with(".weight");
    return part == "transformer" && name.starts_with("blocks.") && weight.dim() == 2 && name.ends_with(".weight");
  }

  CheckpointFiles files(const LatentStatistics& statistics, const std::string& note,
                        at::ScalarType dtype) const override {
    WanSetup setup = setup_;
    setup.vae.latents_mean = statistics.mean;
    setup.vae.latents_std = statistics.deviation;
    setup.info.note = note;
    return wan_files(setup, dtype, dtype);
  }

 private:
  const WanConfig& dit() const { return setup_.transformers.front(); }
  static weights::WeightStore bind(const NamedTensors& weights, const std::vector<TensorSpec>& specs,
                                   const std::string& what) {
    return weights::WeightStore::bind(weights::make_memory_source(weights), specs, what);
  }

  WanSetup setup_;
  StoredWeights stored_;
};

}  // namespace

std::unique_ptr<TrainableModel> make_wan_trainable(WanSetup setup, StoredWeights stored) {
  return std::make_unique<WanTrainable>(std::move(setup), std::move(stored));
}

}  // namespace strobe::models
