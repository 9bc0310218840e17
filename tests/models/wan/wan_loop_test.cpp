// Transformer, sampler, guidance and VAE together, against numbers of the reference pipelines (fill-rule weights).
#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "models/vae/first_frame_condition.h"
#include "models/vae/wan_vae.h"
#include "models/vae/wan_vae_config.h"
#include "models/wan/wan.h"
#include "sampling/guider.h"
#include "sampling/sampler.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

using sampling::FlowSpacing;
using test::fill_input;
using test::matches_summary;

WanConfig tiny_config() {
  WanConfig config;
  config.heads = 2, config.head_width = 12, config.layers = 2, config.ffn_width = 32, config.text_width = 32;
  config.rope_positions = 32;
  return config;
}

std::unique_ptr<DiTModel> fill_dit(const WanConfig& config, uint32_t first_rank = 0) {
  const auto specs = wan_parameters(config);
  return make_wan_dit(config, weights::WeightStore::bind(test::fill_model(specs, first_rank), specs, "transformer"),
                      at::kFloat, at::kCPU);
}

std::unique_ptr<Vae> fill_vae() {
  const WanVaeConfig config = WanVaeConfig::from_json(weights::parse_json(
      R"({"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
          "temperal_downsample": [false, true, true]})",
      "tiny"));
  const auto specs = wan_vae_parameters(config);
  return make_wan_vae(config, weights::WeightStore::bind(test::fill_model(specs), specs, "vae"));
}

Conditioning text(uint32_t k, int64_t tokens = 16) {
  return {.text = {.states = fill_input(k, {tokens, 32}), .padded_tokens = tokens}};
}

struct LoopSpec {
  std::vector<DiTModel*> experts;
  double boundary = 0;
  std::string sampler = "unipc";
  FlowSpacing spacing = FlowSpacing::kUniPc;
  int steps = 4;
  double shift = 3;
  double guidance = 6;
  int first_step = 0;
  Conditioning positive, negative;
  // What the model is given instead of (x, [t]); default: just that.
  std::function<std::pair<at::Tensor, at::Tensor>(const at::Tensor& x, float t)> input;
};

at::Tensor run(const LoopSpec& s, at::Tensor start) {
  at::NoGradGuard no_grad;
  auto cache = caching::make_step_cache("none");
  BlockRunner blocks(*cache);
  attention::AttentionEngine engine;
  auto guider = sampling::make_guider("cfg", {.scale_per_stage = {s.guidance}});
  const auto schedule = sampling::make_flow_schedule({.steps = s.steps, .shift = s.shift, .spacing = s.spacing});
  std::vector<std::array<std::shared_ptr<PreparedConditioning>, 2>> prepared;
  for (DiTModel* model : s.experts) prepared.push_back({model->prepare(s.positive), model->prepare(s.negative)});
  return sampling::make_sampler(s.sampler)->sample(
      schedule, {.x = start, .step = s.first_step, .first_step = s.first_step},
      [&](const at::Tensor& x, double sigma, int step) {
        const float t = schedule.timesteps[static_cast<size_t>(step)];
        const size_t stage = s.boundary > 0 && t < s.boundary * 1000 ? 1 : 0;
        auto [latents, timesteps] = s.input ? s.input(x, t) : std::pair(x, at::full({1}, t, at::kFloat));
        std::vector<at::Tensor> predictions;
        for (size_t branch = 0; branch < 2; ++branch) {
          ModelContext context{
              .attention = engine, .blocks = blocks, .branches = {branch == 0 ? Branch::kCond : Branch::kUncond}};
          predictions.push_back(s.experts[stage]->predict(
              {.latents = latents, .timesteps = timesteps, .conditioning = {prepared[stage][branch]}}, context));
        }
        return guider->combine({.step = step, .steps = s.steps, .sigma = sigma, .stage = static_cast<int>(stage)},
                               predictions);
      },
      {});
}

at::Tensor encode(const Vae& vae, const at::Tensor& video) {
  at::NoGradGuard no_grad;
  int64_t at = 0;
  return vae
      .encode(
          [&](int64_t wanted) -> at::Tensor {
            const int64_t count = std::min(wanted, video.size(1) - at);
            if (count <= 0) return {};
            at::Tensor chunk = video.narrow(1, at, count);
            at += count;
            return chunk;
          },
          {})
      .unsqueeze(0);
}

TEST(WanLoop, gives_the_reference_latents_and_frames_with_unipc) {
  auto dit = fill_dit(tiny_config());
  at::Tensor latents =
      run({.experts = {dit.get()}, .positive = text(31), .negative = text(32)}, fill_input(30, {1, 16, 3, 2, 2}));
  EXPECT_TRUE(
      matches_summary(latents,
                      {-0.06854815,
                       1.83396325,
                       {3.5151134, 2.6262007, -2.3614364, 1.4803884, 2.1618676, -0.1072963, 1.7461957, -1.1402092}},
                      2e-5));
  std::vector<at::Tensor> chunks;
  fill_vae()->decode(latents[0], {}, [&](const at::Tensor& frames) { chunks.push_back(frames.clone()); });
  at::Tensor video = at::cat(chunks, 1);
  EXPECT_TRUE(
      matches_summary(video,
                      {0.15411173,
                       0.47309119,
                       {0.3451168, 0.1028319, 0.0944295, 0.1819162, 0.7796276, 0.4041404, 0.3175192, -0.3569698}},
                      2e-5));
  at::Tensor bytes = video.mul(0.5).add(0.5).clamp(0, 1).mul(255).round();
  EXPECT_NEAR(bytes.sum(at::kDouble).item<double>(), 1017074, 3);
}

TEST(WanLoop, gives_the_reference_latents_with_the_older_sigmas_and_with_euler) {
  auto dit = fill_dit(tiny_config());
  LoopSpec setup{.experts = {dit.get()}, .spacing = FlowSpacing::kUniPcOld, .positive = text(31), .negative = text(32)};
  at::Tensor start = fill_input(30, {1, 16, 3, 2, 2});
  EXPECT_TRUE(
      matches_summary(run(setup, start),
                      {-0.07197955,
                       1.80805401,
                       {3.4206181, 2.4569018, -2.3895473, 1.3490968, 1.9488869, -0.5473648, 1.6451793, -1.2468035}},
                      2e-5));
  setup.sampler = "euler", setup.spacing = FlowSpacing::kEuler, setup.shift = 7;
  EXPECT_TRUE(
      matches_summary(run(setup, start),
                      {-0.16240287,
                       1.95957829,
                       {3.0064723, 1.9394742, -1.5100905, 1.8396792, 0.9959152, -0.5812304, 2.7305243, -1.1795820}},
                      2e-5));
}

TEST(WanLoop, hands_over_from_the_high_noise_to_the_low_noise_expert) {
  auto high = fill_dit(tiny_config()), low = fill_dit(tiny_config(), 500);
  LoopSpec setup{.experts = {high.get(), low.get()}, .boundary = 0.875, .positive = text(31), .negative = text(32)};
  EXPECT_TRUE(
      matches_summary(run(setup, fill_input(30, {1, 16, 3, 2, 2})),
                      {0.10128392,
                       1.96732000,
                       {4.4774246, 2.7632289, 1.4678445, -0.7696030, 2.7846048, 1.6383817, -0.9682268, -1.2950859}},
                      2e-5));
}

TEST(WanLoop, starts_from_a_noised_video) {
  auto dit = fill_dit(tiny_config());
  auto vae = fill_vae();
  at::Tensor clean = encode(*vae, fill_input(40, {1, 3, 9, 16, 16}, 1.0)[0]);
  const int first = sampling::first_step_for_strength(5, 0.6);
  EXPECT_EQ(first, 2);
  const auto schedule = sampling::make_flow_schedule({.steps = 5, .shift = 3});
  at::Tensor noisy =
      sampling::add_noise(clean, fill_input(41, {1, 16, 3, 2, 2}), schedule.sigmas[static_cast<size_t>(first)]);
  EXPECT_TRUE(
      matches_summary(noisy,
                      {0.01066001,
                       0.82949216,
                       {0.8072355, -0.7409213, -0.0664648, -0.4216987, -1.0676082, 0.6191538, -0.3844123, 0.3043984}},
                      2e-5));
  LoopSpec setup{.experts = {dit.get()},
                 .steps = 5,
                 .guidance = 5,
                 .first_step = first,
                 .positive = text(31),
                 .negative = text(32)};
  EXPECT_TRUE(
      matches_summary(run(setup, noisy),
                      {0.06090561,
                       1.46220497,
                       {2.1206059, -2.5309308, 0.3684423, -0.6239611, -0.7103587, 1.8511921, -0.1603730, -0.0154530}},
                      2e-5));
}

TEST(WanLoop, keeps_a_given_first_frame_by_timesteps_per_token) {
  auto dit = fill_dit(tiny_config());
  auto vae = fill_vae();
  at::Tensor image = encode(*vae, fill_input(42, {1, 3, 16, 16}, 1.0)[0].unsqueeze(1));  // [1, 16, 1, 2, 2]
  at::Tensor mask = at::ones({1, 1, 3, 2, 2});
  mask.select(2, 0).zero_();
  const auto blend = [&](const at::Tensor& x) { return (1 - mask) * image + mask * x; };
  LoopSpec setup{.experts = {dit.get()},
                 .steps = 3,
                 .shift = 5,
                 .guidance = 5,
                 .positive = text(31),
                 .negative = text(32),
                 .input = [&](const at::Tensor& x, float t) {
                   at::Tensor tokens =
                       mask[0][0].slice(1, 0, std::nullopt, 2).slice(2, 0, std::nullopt, 2).flatten() * t;
                   return std::pair(blend(x), tokens.unsqueeze(0));
                 }};
  EXPECT_TRUE(
      matches_summary(blend(run(setup, fill_input(43, {1, 16, 3, 2, 2}))),
                      {0.06598036,
                       1.34192555,
                       {0.3025043, 0.2745277, 0.3123724, 0.3082165, -1.5499017, -0.1473341, 0.3287209, -1.6615324}},
                      2e-5));
}

TEST(WanLoop, continues_a_given_first_frame_with_image_tokens) {
  at::NoGradGuard no_grad;
  auto vae = fill_vae();
  at::Tensor image = fill_input(42, {1, 3, 16, 16}, 1.0)[0];
  at::Tensor condition = compute_first_frame_condition(*vae, {.first = image}, 9).unsqueeze(0);
  EXPECT_TRUE(matches_summary(
      condition, {0.10379635, 0.45454376, {1, 1, 1, 1, 0.4327536, -0.0163079, -0.1212944, 0.0378655}}, 2e-5));
  WanConfig config = tiny_config();
  config.in_channels = 36, config.image_width = 4;
  auto dit = fill_dit(config);
  LoopSpec setup{.experts = {dit.get()},
                 .steps = 3,
                 .guidance = 5,
                 .positive = text(44, 512),
                 .negative = text(45, 512),
                 .input = [&](const at::Tensor& x, float t) {
                   return std::pair(at::cat({x, condition}, 1), at::full({1}, t, at::kFloat));
                 }};
  // The image tokens are given to the unconditional pass too.
  setup.positive.image_tokens = setup.negative.image_tokens = fill_input(4, {5, 4});
  EXPECT_TRUE(
      matches_summary(run(setup, fill_input(43, {1, 16, 3, 2, 2})),
                      {0.15515436,
                       1.52432832,
                       {0.8969593, 0.1608253, 0.4889816, 0.2841889, -0.3886579, 1.5318925, -0.3992984, -2.3556862}},
                      2e-5));
}

}  // namespace
}  // namespace strobe::models
