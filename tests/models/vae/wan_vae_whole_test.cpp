#include "models/vae/wan_vae_whole.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "models/vae/wan_vae_whole_layers.h"
#include "tests/models/vae/tiny_vaes.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace strobe::models {
namespace {

using test::fill_input;
using test::matches;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

using Tensors = std::map<std::string, at::Tensor>;

Tensors filled(const WanVaeConfig& config, at::ScalarType dtype = at::kFloat) {
  const auto source = test::fill_model(wan_vae_parameters(config));
  Tensors tensors;
  for (const weights::TensorInfo& info : source->tensors()) {
    tensors[info.name] = source->read(info.name).to(dtype, /*non_blocking=*/false, /*copy=*/true);
  }
  // Pixels within [-1, 1], so that the clamp of the chunked form hides nothing.
  tensors["decoder.conv_out.weight"].mul_(0.1);
  return tensors;
}

weights::WeightStore store_of(const WanVaeConfig& config, const Tensors& tensors) {
  return weights::WeightStore::bind(weights::make_memory_source(tensors), wan_vae_parameters(config), "vae");
}

WholeClipVae make_whole(const WanVaeConfig& config, const Tensors& tensors, at::ScalarType dtype = at::kFloat) {
  return {config, store_of(config, tensors), dtype, at::kCPU};
}

// The smallest that have every kind of layer.
WanVaeConfig least(bool is_residual) {
  WanVaeConfig config;
  config.base_width = config.decoder_base_width = 2;
  config.latent_channels = 2;
  config.width_factors = {is_residual ? 2 : 1, 2};  // shortcuts around levels need widths that divide
  config.halves_frames = {true};
  config.num_res_blocks = 1;
  config.is_residual = is_residual;
  config.patch_size = 2;
  config.in_channels = config.out_channels = 12;
  return without_normalisation(config);
}

at::Tensor batch_of_clips(const WanVaeConfig& config, int64_t frames) {
  const int64_t side = config.spatial_stride();
  return fill_input(80, {2, 3, frames, side * 2, side * 3}, 1.0);
}

const std::vector<WanVaeConfig>& configs() {
  static const std::vector<WanVaeConfig> all = {tiny_21b(),      tiny_22(),    odd_plain(),
                                                patched_plain(), least(false), least(true)};
  return all;
}

TEST(WholeClipVae, posteriors_are_those_of_the_chunked_form) {
  for (const WanVaeConfig& config : configs()) {
    const Tensors tensors = filled(config);
    const std::unique_ptr<Vae> chunked = make_wan_vae(config, store_of(config, tensors));
    // The chunked form gives means alone: with the halves of the last layer exchanged, they are the log variances.
    Tensors exchanged = tensors;
    for (const char* name : {"quant_conv.weight", "quant_conv.bias"}) {
      exchanged[name] = at::roll(tensors.at(name), config.latent_channels, 0);
    }
    const std::unique_ptr<Vae> of_variances = make_wan_vae(config, store_of(config, exchanged));
    for (int64_t frames : {1, 5, 17}) {
      const at::Tensor clips = batch_of_clips(config, frames);
      const VaePosterior posterior = make_whole(config, tensors).encode(clips);
      for (int64_t row = 0; row < clips.size(0); ++row) {
        EXPECT_TRUE(matches(posterior.mean[row], encode_clip(*chunked, clips[row]))) << frames << " frames";
        EXPECT_TRUE(matches(posterior.log_variance[row], encode_clip(*of_variances, clips[row])));
      }
    }
  }
}

TEST(WholeClipVae, pixels_are_those_of_the_chunked_form) {
  for (const WanVaeConfig& config : configs()) {
    const Tensors tensors = filled(config);
    const std::unique_ptr<Vae> chunked = make_wan_vae(config, store_of(config, tensors));
    for (int64_t count : {1, 3, 9}) {
      const at::Tensor latents = fill_input(81, {2, config.latent_channels, count, 2, 3});
      const at::Tensor clips = make_whole(config, tensors).decode(latents);
      ASSERT_LT(clips.abs().max().item<float>(), 1.0F);
      for (int64_t row = 0; row < latents.size(0); ++row) {
        EXPECT_TRUE(matches(clips[row], decode_clip(*chunked, latents[row]))) << count << " latent frames";
      }
    }
  }
}

// Weighted by fixed numbers, so that no gradient vanishes by symmetry.
at::Tensor loss_of(const WholeClipVae& vae, const at::Tensor& clips) {
  const VaePosterior posterior = vae.encode(clips);
  const at::Tensor pixels = vae.decode(posterior.mean + (0.5 * posterior.log_variance).exp() * 0.3);
  const auto weighted = [](const at::Tensor& x, uint32_t k) {
    return (x * fill_input(k, x.sizes().vec()).to(x.scalar_type())).sum();
  };
  return weighted(pixels, 82) + weighted(posterior.mean, 83) + weighted(posterior.log_variance, 84);
}

// Gradients by name; "clips" for those of the input.
Tensors gradients_of(const WanVaeConfig& config, Tensors tensors, at::Tensor clips, at::ScalarType dtype) {
  for (auto& [name, tensor] : tensors) tensor = tensor.to(dtype).detach().clone().requires_grad_();
  clips = clips.to(dtype).clone().requires_grad_();
  loss_of(make_whole(config, tensors, dtype), clips).backward();
  Tensors gradients;
  for (const auto& [name, tensor] : tensors) gradients[name] = tensor.grad();
  gradients["clips"] = clips.grad();
  return gradients;
}

// Along a fixed direction through each tensor.
TEST(WholeClipVae, gradients_are_those_of_finite_differences) {
  // The norm of a pixel near zero is strongly curved, hence the small step.
  constexpr double kStep = 5e-8;
  for (bool is_residual : {false, true}) {
    const WanVaeConfig config = least(is_residual);
    Tensors tensors = filled(config, at::kDouble);
    const at::Tensor clips = fill_input(85, {2, 3, 5, 8, 8}, 1.0).to(at::kDouble);
    const Tensors gradients = gradients_of(config, tensors, clips, at::kDouble);
    tensors["clips"] = clips;
    uint32_t k = 100;
    for (auto& [name, tensor] : tensors) {
      const at::Tensor value = tensor, direction = fill_input(k++, tensor.sizes().vec()).to(at::kDouble);
      const auto loss_at = [&](double step) {
        tensor = value + step * direction;
        Tensors parameters = tensors;
        const at::Tensor input = parameters.extract("clips").mapped();
        return loss_of(make_whole(config, parameters, at::kDouble), input).item<double>();
      };
      const double slope = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
      tensor = value;
      ASSERT_TRUE(gradients.at(name).defined()) << name;
      EXPECT_NEAR((gradients.at(name) * direction).sum().item<double>(), slope, 1e-5 * (1 + std::abs(slope))) << name;
    }
  }
}

// Every float32 pass of its own against the plain operators.
TEST(WholeClipVae, float32_gradients_agree_with_float64) {
  for (const WanVaeConfig& config : {odd_plain(), least(true), patched_plain()}) {
    const Tensors tensors = filled(config);
    const at::Tensor clips = batch_of_clips(config, 5);
    const Tensors narrow = gradients_of(config, tensors, clips, at::kFloat);
    for (const auto& [name, expected] : gradients_of(config, tensors, clips, at::kDouble)) {
      EXPECT_TRUE(matches(narrow.at(name), expected, {.relative_l2 = 1e-4, .worst_row = 2e-3})) << name;
    }
  }
}

TEST(WholeClipVae, one_frame_trains_only_what_it_meets) {
  const WanVaeConfig config = patched_plain();
  const Tensors gradients = gradients_of(config, filled(config), batch_of_clips(config, 1), at::kFloat);
  int64_t num_temporal = 0;
  for (const auto& [name, gradient] : gradients) {
    if (name.find("time_conv") != std::string::npos) {
      EXPECT_FALSE(gradient.defined()) << name;
      ++num_temporal;
    } else if (name != "clips" && gradient.dim() == 5 && gradient.size(2) == 3) {
      EXPECT_EQ(gradient.narrow(2, 0, 2).abs().max().item<float>(), 0.0F) << name;
      EXPECT_GT(gradient.select(2, 2).abs().max().item<float>(), 0.0F) << name;
    }
  }
  EXPECT_EQ(num_temporal, 4);
}

TEST(WholeClipVae, the_norm_has_the_gradient_of_its_definition) {
  // More rows than one partial sum of gamma's gradient takes, a width with a tail, and a pixel of zeros.
  const at::Tensor frames = fill_input(86, {3, 2, 15, 17, 21});
  frames[1][1][4][5].zero_();
  const at::Tensor gamma = fill_input(87, {21, 1, 1, 1}), weights = fill_input(88, frames.sizes().vec());
  for (bool with_silu : {false, true}) {
    const auto gradients = [&](at::ScalarType dtype) {
      const at::Tensor x = frames.to(dtype).clone().requires_grad_(), g = gamma.to(dtype).clone().requires_grad_();
      (whole::channel_norm(x, g, with_silu) * weights.to(dtype)).sum().backward();
      return std::pair(x.grad(), g.grad());
    };
    const auto narrow = gradients(at::kFloat), wide = gradients(at::kDouble);
    EXPECT_TRUE(matches(narrow.first, wide.first, {.relative_l2 = 2e-6}));
    EXPECT_TRUE(matches(narrow.second, wide.second, {.relative_l2 = 2e-6}));
    const at::Tensor ordinary = frames.abs().sum(-1, /*keepdim=*/true).gt(0).to(at::kFloat);
    EXPECT_TRUE(matches(narrow.first * ordinary, wide.first * ordinary, {.relative_l2 = 2e-6}));
  }
}

TEST(WholeClipVae, the_causal_convolution_is_a_padded_one) {
  const at::Tensor weight = fill_input(89, {4, 3, 3, 3, 3}).to(at::kDouble), bias = fill_input(90, {4}).to(at::kDouble);
  for (int64_t count : {1, 2, 3, 6}) {
    const at::Tensor frames = fill_input(91, {count, 2, 5, 4, 3}).to(at::kDouble);
    const at::Tensor padded = at::constant_pad_nd(frames.permute({1, 4, 0, 2, 3}), {0, 0, 0, 0, 2, 0});
    const at::Tensor expected = at::conv3d(padded, weight, bias, 1, {0, 1, 1}).permute({2, 0, 3, 4, 1});
    EXPECT_TRUE(matches(whole::causal_conv(frames, weight, bias), expected, {.relative_l2 = 1e-12}));
  }
}

TEST(WholeClipVae, names_the_shapes_it_refuses) {
  const WanVaeConfig config = patched_plain();
  const WholeClipVae vae = make_whole(config, filled(config));
  EXPECT_THAT(
      [&] {
        vae.encode(at::zeros({1, 3, 4, 16, 16}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("expected clips [B, 3, 2 k + 1, 8 m, 8 n], got [1, 3, 4, 16, 16]")));
  EXPECT_THAT(
      [&] {
        vae.encode(at::zeros({1, 3, 5, 16, 12}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("got [1, 3, 5, 16, 12]")));
  EXPECT_THAT(
      [&] {
        vae.decode(at::zeros({1, 15, 1, 2, 2}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("expected latents [B, 16, F, H, W], got [1, 15, 1, 2, 2]")));
}

}  // namespace
}  // namespace strobe::models
