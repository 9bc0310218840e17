// The diffusion transformer against numbers of the reference implementation (fill-rule weights, float32).
#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "models/layers.h"
#include "models/rope.h"
#include "models/wan/wan.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

using test::fill_input;
using test::matches_summary;

WanConfig tiny_config(int64_t head_width = 12) {
  WanConfig config;
  config.heads = 2;
  config.head_width = head_width;
  config.layers = 2;
  config.ffn_width = 32;
  config.text_width = 32;
  config.rope_positions = 32;
  return config;
}

std::unique_ptr<DiTModel> fill_dit(const WanConfig& config, at::ScalarType dtype = at::kFloat) {
  const std::vector<weights::TensorSpec> specs = wan_parameters(config);
  return make_wan_dit(config, weights::WeightStore::bind(test::fill_model(specs), specs, "transformer"), dtype,
                      at::kCPU);
}

struct Session {
  std::unique_ptr<caching::StepCache> cache = caching::make_step_cache("none");
  BlockRunner blocks{*cache};
  attention::AttentionEngine engine;
  ModelContext context{.attention = engine, .blocks = blocks, .branches = {Branch::kCond}};
};

at::Tensor predict(const DiTModel& model, const at::Tensor& x, const at::Tensor& t, const Conditioning& conditioning) {
  at::NoGradGuard no_grad;
  Session run;
  return model.predict({.latents = x, .timesteps = t, .conditioning = {model.prepare(conditioning)}}, run.context);
}

Conditioning text_of(uint32_t k, int64_t tokens) {
  return {.text = {.states = fill_input(k, {tokens, 32}), .padded_tokens = tokens}};
}

TEST(WanDiT, gives_the_reference_numbers_for_one_timestep) {
  at::Tensor x = fill_input(0, {1, 16, 3, 4, 6});
  at::Tensor t = at::full({1}, 750.0F);
  EXPECT_TRUE(
      matches_summary(predict(*fill_dit(tiny_config()), x, t, text_of(1, 16)),
                      {-0.05920961,
                       1.17083791,
                       {-1.3193638, -0.6431643, 0.2933820, -0.7338781, -0.8574712, -0.1518266, 1.5635325, 0.6933694}}));
  EXPECT_TRUE(matches_summary(
      predict(*fill_dit(tiny_config(24)), x, t, text_of(1, 16)),
      {-0.15877227,
       1.38109239,
       {0.0449033, -1.1206195, 2.7294073, -1.9181448, -0.3935139, -0.6177025, -0.4811946, -0.7725080}}));
}

TEST(WanDiT, takes_one_timestep_per_token) {
  at::Tensor t = at::cat({at::zeros({6}), at::full({12}, 600.0F)}).unsqueeze(0);
  EXPECT_TRUE(matches_summary(
      predict(*fill_dit(tiny_config()), fill_input(0, {1, 16, 3, 4, 6}), t, text_of(1, 16)),
      {-0.15516183,
       1.13069694,
       {-2.2560399, -0.6033335, -0.8674229, -0.9247991, -1.4179262, -0.2755538, 1.0209327, -0.6463438}}));
}

TEST(WanDiT, reads_image_tokens_through_their_own_keys) {
  WanConfig config = tiny_config();
  config.in_channels = 36;
  config.image_width = 4;
  Conditioning conditioning{.text = {.states = fill_input(3, {512, 32}), .padded_tokens = 512},
                            .image_tokens = fill_input(4, {5, 4})};
  EXPECT_TRUE(
      matches_summary(predict(*fill_dit(config), fill_input(2, {1, 36, 3, 4, 6}), at::full({1}, 750.0F), conditioning),
                      {0.01619987,
                       1.15591310,
                       {-1.7937874, -1.1640620, -1.4056485, 0.0909788, 0.1337651, -1.0729135, 0.5882567, 2.0283439}}));
}

TEST(WanDiT, folds_equal_padding_rows_into_one_key_exactly) {
  auto model = fill_dit(tiny_config());
  at::Tensor x = fill_input(0, {1, 16, 3, 4, 6}), states = fill_input(1, {9, 32}), t = at::full({1}, 750.0F);
  at::Tensor padded = at::cat({states, at::zeros({503, 32})});
  at::Tensor folded = predict(*model, x, t, {.text = {.states = states, .padded_tokens = 512}});
  at::Tensor full = predict(*model, x, t, {.text = {.states = padded, .padded_tokens = 512}});
  EXPECT_TRUE(test::matches(folded, full, {.relative_l2 = 2e-6}));
}

TEST(WanDiT, keeps_the_rows_of_a_batch_independent) {
  at::NoGradGuard no_grad;
  auto model = fill_dit(tiny_config());
  at::Tensor x = fill_input(0, {2, 16, 3, 4, 6}), t = at::tensor({750.0F, 300.0F});
  Conditioning first{.text = {.states = fill_input(1, {9, 32}), .padded_tokens = 64}};
  Conditioning second{.text = {.states = fill_input(2, {4, 32}), .padded_tokens = 64}};
  Session run;
  run.context.branches = {Branch::kCond, Branch::kUncond};
  at::Tensor both = model->predict(
      {.latents = x, .timesteps = t, .conditioning = {model->prepare(first), model->prepare(second)}}, run.context);
  EXPECT_TRUE(test::matches(both.narrow(0, 0, 1), predict(*model, x.narrow(0, 0, 1), t.narrow(0, 0, 1), first),
                            {.relative_l2 = 2e-6}));
  EXPECT_TRUE(test::matches(both.narrow(0, 1, 1), predict(*model, x.narrow(0, 1, 1), t.narrow(0, 1, 1), second),
                            {.relative_l2 = 2e-6}));
}

TEST(WanDiT, streamed_from_its_file_computes_the_same_bits) {
  at::NoGradGuard no_grad;
  const std::vector<weights::TensorSpec> specs = wan_parameters(tiny_config());
  const auto filled = test::fill_model(specs);
  test::TempFolder folder;
  for (at::ScalarType stored : {at::kFloat, at::kBFloat16}) {
    std::map<std::string, at::Tensor> tensors;
    for (const weights::TensorSpec& spec : specs) tensors[spec.name] = filled->read(spec.name).to(stored);
    weights::save_safetensors(folder / "model.safetensors", tensors, {});
    const auto store =
        weights::WeightStore::bind(weights::open_safetensors(folder / "model.safetensors"), specs, "transformer");
    const at::Tensor x = fill_input(0, {1, 16, 3, 4, 6}), t = at::full({1}, 750.0F);
    const Conditioning text = text_of(1, 16);
    const auto loaded = make_wan_dit(tiny_config(), store, at::kFloat, at::kCPU);
    const auto streamed = make_wan_dit(tiny_config(), store, at::kFloat, at::kCPU, Residency::kStreamed);
    const at::Tensor expected = predict(*loaded, x, t, text);
    for (int run = 0; run < 2; ++run) EXPECT_TRUE(at::equal(predict(*streamed, x, t, text), expected)) << stored;
  }
}

TEST(WanDiT, calls_attention_once_per_layer_and_kind) {
  at::NoGradGuard no_grad;
  auto model = fill_dit(tiny_config());
  Session run;
  model->predict({.latents = fill_input(0, {1, 16, 3, 4, 6}),
                  .timesteps = at::full({1}, 750.0F),
                  .conditioning = {model->prepare(text_of(1, 16))}},
                 run.context);
  ASSERT_EQ(run.engine.stats().rows().size(), 2U);
  EXPECT_EQ(run.engine.stats().rows()[0].kind, "self");
  EXPECT_EQ(run.engine.stats().rows()[0].calls, 2);
  EXPECT_EQ(run.engine.stats().rows()[1].kind, "cross");
  EXPECT_EQ(run.engine.stats().rows()[1].calls, 2);
  EXPECT_EQ(run.blocks.blocks_run(), 2);
}

TEST(WanDiT, loads_original_names_with_and_without_a_prefix) {
  const std::vector<weights::TensorSpec> specs = wan_parameters(tiny_config());
  auto source = test::fill_model(specs);
  const auto original = [](std::string name) {
    const std::vector<std::pair<std::string, std::string>> rules = {
        {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
        {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
        {"condition_embedder.time_proj", "time_projection.1"},
        {"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
        {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
        {"attn1", "self_attn"},
        {"attn2", "cross_attn"},
        {"to_q", "q"},
        {"to_k", "k"},
        {"to_v", "v"},
        {"to_out.0", "o"},
        {".norm2", ".norm3"},
        {"ffn.net.0.proj", "ffn.0"},
        {"ffn.net.2", "ffn.2"},
        {"proj_out", "head.head"}};
    if (name == "scale_shift_table") return std::string("head.modulation");
    if (size_t at = name.find("scale_shift_table"); at != std::string::npos) name.replace(at, 17, "modulation");
    for (const auto& [ours, theirs] : rules) {
      if (size_t at = name.find(ours); at != std::string::npos) name.replace(at, ours.size(), theirs);
    }
    return name;
  };
  for (std::string prefix : {"", "model.diffusion_model.", "diffusion_model."}) {
    std::map<std::string, at::Tensor> renamed;
    for (const weights::TensorSpec& spec : specs) renamed[prefix + original(spec.name)] = source->read(spec.name);
    renamed[prefix + "rope.freqs"] = at::zeros({4});
    auto file = weights::make_memory_source(renamed);
    auto store = weights::WeightStore::bind(file, specs, "transformer", wan_rename(*file));
    for (const weights::TensorSpec& spec : specs)
      EXPECT_TRUE(at::equal(store.load_stored(spec.name), source->read(spec.name)));
  }
}

TEST(WanConfig, counts_the_tensors_and_parameters_of_the_published_models) {
  const auto count = [](int64_t heads, int64_t layers, int64_t ffn, int64_t in, int64_t out, int64_t image) {
    WanConfig config;
    config.heads = heads, config.layers = layers, config.ffn_width = ffn;
    config.in_channels = in, config.out_channels = out, config.image_width = image;
    const auto specs = wan_parameters(config);
    return std::pair(specs.size(), weights::count_parameters(specs));
  };
  EXPECT_EQ(count(12, 30, 8960, 16, 16, 0), (std::pair<size_t, int64_t>(825, 1418996800)));
  EXPECT_EQ(count(40, 40, 13824, 16, 16, 0), (std::pair<size_t, int64_t>(1095, 14288491584)));
  EXPECT_EQ(count(40, 40, 13824, 36, 16, 1280), (std::pair<size_t, int64_t>(1303, 16394878784)));
  EXPECT_EQ(count(40, 40, 13824, 36, 16, 0), (std::pair<size_t, int64_t>(1095, 14288901184)));
  EXPECT_EQ(count(24, 30, 14336, 48, 48, 0), (std::pair<size_t, int64_t>(825, 4999787712)));
}

TEST(WanConfig, is_inferred_from_the_shapes_of_a_checkpoint) {
  WanConfig config = tiny_config(64);  // d = 128: one head of 128 by the rule
  const auto specs = wan_parameters(config);
  const WanConfig inferred = WanConfig::from_tensors(*test::fill_model(specs));
  EXPECT_EQ(inferred.width(), 128);
  EXPECT_EQ(inferred.layers, 2);
  EXPECT_EQ(inferred.ffn_width, 32);
  EXPECT_EQ(inferred.text_width, 32);
  EXPECT_EQ(inferred.out_channels, 16);
}

TEST(Sinusoid, has_the_cosine_half_first_and_half_as_divisor) {
  at::Tensor s = timestep_sinusoid(at::tensor({999.0F, 500.0F}), 256);
  const int64_t places[] = {0, 1, 64, 127, 128, 129, 192, 255};
  const double first[] = {0.9996498, 0.9637853, -0.8444698, 0.9942431, -0.0264608, -0.2666794, -0.5356032, 0.1071472};
  const double second[] = {-0.8838493, 0.9459457, 0.2836622, 0.9985569, -0.4677718, 0.3243249, -0.9589243, 0.0537045};
  for (int i = 0; i < 8; ++i) {
    EXPECT_NEAR(s[0][places[i]].item<double>(), first[i], 2e-6);
    EXPECT_NEAR(s[1][places[i]].item<double>(), second[i], 2e-6);
  }
}

TEST(Rope, shares_a_head_of_128_as_44_42_42) {
  RopeTables rope = make_rope_3d({.frames = 2, .rows = 2, .cols = 2}, 128, 1024, at::kCPU);
  const int64_t pairs[] = {0, 1, 21, 22, 42, 43, 63};
  const double cosine[] = {0.5403023, 0.7912577, 1.0, 0.5403023, 1.0, 0.5403023, 1.0};
  const double sine[] = {0.8414710, 0.6114828, 0.000152, 0.8414710, 0.0001551, 0.8414710, 0.0001551};
  for (int i = 0; i < 7; ++i) {
    EXPECT_NEAR(rope.cosine[7][pairs[i]].item<double>(), cosine[i], 1e-6);
    EXPECT_NEAR(rope.sine[7][pairs[i]].item<double>(), sine[i], 1e-6);
  }
}

TEST(Rope, rotates_adjacent_pairs) {
  RopeTables rope = make_rope_3d({.frames = 3, .rows = 2, .cols = 3}, 12, 1024, at::kCPU);
  const int64_t token = (2 * 2 + 1) * 3 + 2;
  at::Tensor z = at::arange(1, 13, at::kFloat).div(10.0).view({1, 1, 12});
  // RMS norm with weight = rms leaves z as it is.
  at::Tensor weight = at::full({12}, std::sqrt(z.square().mean().item<float>() + 1e-6F));
  at::Tensor rotated = rms_norm_rope(z.clone(), weight, 1e-6, 1, rope.cosine.narrow(0, token, 1).contiguous(),
                                     rope.sine.narrow(0, token, 1).contiguous());
  const double expected[] = {-0.2234742, 0.0077004, 0.2919405,  0.4059196, -0.2347314, 0.7449169,
                             0.6919652,  0.8069599, -1.2838296, 0.4022208, 1.0757817,  1.2217586};
  for (int i = 0; i < 12; ++i) EXPECT_NEAR(rotated[0][0][i].item<double>(), expected[i], 2e-6);
}

TEST(WanDiT, stays_close_to_float32_in_bfloat16) {
  at::Tensor x = fill_input(0, {1, 16, 3, 4, 6}), t = at::full({1}, 750.0F);
  at::Tensor wide = predict(*fill_dit(tiny_config()), x, t, text_of(1, 16));
  at::Tensor narrow = predict(*fill_dit(tiny_config(), at::kBFloat16), x, t, text_of(1, 16));
  EXPECT_LT(test::relative_l2(narrow, wide), 3e-2);
}

}  // namespace
}  // namespace strobe::models
