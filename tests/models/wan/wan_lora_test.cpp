// LoRA files for Wan by every usual naming, and which transformer they go to.
#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "models/wan/wan_lora.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/log.h"
#include "models/wan/wan.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

using test::fill_input;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Tensors = std::map<std::string, at::Tensor>;

constexpr int64_t kRank = 4;

WanConfig tiny_config() {
  WanConfig config;
  config.heads = 2;
  config.head_width = 12;
  config.layers = 2;
  config.ffn_width = 32;
  config.text_width = 32;
  config.rope_positions = 32;
  return config;
}

WanConfig image_config() {
  WanConfig config = tiny_config();
  config.in_channels = 36;
  config.image_width = 4;
  return config;
}

// Every layer of a model with an image branch: its diffusers and its original name.
std::vector<std::pair<std::string, std::string>> layer_names() {
  std::vector<std::pair<std::string, std::string>> names = {
      {"patch_embedding", "patch_embedding"},
      {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
      {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
      {"condition_embedder.time_proj", "time_projection.1"},
      {"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
      {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
      {"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"},
      {"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"},
      {"proj_out", "head.head"}};
  for (std::string block : {"blocks.0.", "blocks.1."}) {
    for (const auto& [ours, theirs] : {std::pair("attn1.", "self_attn."), std::pair("attn2.", "cross_attn.")}) {
      names.emplace_back(block + ours + "to_q", block + theirs + "q");
      names.emplace_back(block + ours + "to_k", block + theirs + "k");
      names.emplace_back(block + ours + "to_v", block + theirs + "v");
      names.emplace_back(block + ours + "to_out.0", block + theirs + "o");
    }
    names.emplace_back(block + "attn2.add_k_proj", block + "cross_attn.k_img");
    names.emplace_back(block + "attn2.add_v_proj", block + "cross_attn.v_img");
    names.emplace_back(block + "ffn.net.0.proj", block + "ffn.0");
    names.emplace_back(block + "ffn.net.2", block + "ffn.2");
  }
  return names;
}

std::vector<int64_t> shape_of(const WanConfig& config, const std::string& name) {
  for (const weights::TensorSpec& spec : wan_parameters(config)) {
    if (spec.name == name) return spec.shape;
  }
  ADD_FAILURE() << name;
  return {1, 1};
}

struct Naming {
  std::string label;
  std::string prefix;
  bool is_original;
  std::string down, up;
  bool is_flat = false;
};

const std::vector<Naming>& namings() {
  static const std::vector<Naming> all = {
      {"diffusers", "transformer.", false, ".lora_A.weight", ".lora_B.weight"},
      {"peft", "base_model.model.", false, ".lora_A.weight", ".lora_B.weight"},
      {"bare", "", false, ".lora_A.weight", ".lora_B.weight"},
      {"original", "diffusion_model.", true, ".lora_A.weight", ".lora_B.weight"},
      {"original down and up", "diffusion_model.", true, ".lora_down.weight", ".lora_up.weight"},
      {"repackaged", "model.diffusion_model.", true, ".lora_down.weight", ".lora_up.weight"},
      {"DiffSynth", "", true, ".lora_A.default.weight", ".lora_B.default.weight"},
      {"kohya", "lora_unet_", true, ".lora_down.weight", ".lora_up.weight", true}};
  return all;
}

// The same filled LoRA of every layer under one naming; alpha 0: none.
Tensors filled_lora(const WanConfig& config, const Naming& naming, double alpha = 0) {
  Tensors out;
  uint32_t k = 0;
  for (const auto& [diffusers, original] : layer_names()) {
    const std::vector<int64_t> shape = shape_of(config, diffusers + ".weight");
    std::string name = naming.is_original ? original : diffusers;
    if (naming.is_flat) std::replace(name.begin(), name.end(), '.', '_');
    name = naming.prefix + name;
    std::vector<int64_t> down = shape, up(shape.size(), 1);
    down[0] = kRank, up[0] = shape[0], up[1] = kRank;
    out[name + naming.down] = fill_input(k++, down, 0.2);
    out[name + naming.up] = fill_input(k++, up, 0.2);
    if (alpha != 0) out[name + ".alpha"] = at::scalar_tensor(alpha, at::kBFloat16);
  }
  return out;
}

struct WanLora : ::testing::Test {
  test::TempFolder folder;
  std::vector<std::string> messages;

  void SetUp() override {
    set_log_sink([this](LogLevel, std::string_view message) { messages.emplace_back(message); });
  }
  void TearDown() override { set_log_sink({}); }

  std::filesystem::path save(const Tensors& tensors, const std::string& name = "lora",
                             const std::map<std::string, std::string>& header = {}) {
    weights::save_safetensors(folder / (name + ".safetensors"), tensors, header);
    return folder / (name + ".safetensors");
  }
  weights::WeightStore store_of(const WanConfig& config, const weights::LoraPlan& plan, size_t stage = 0) {
    const std::vector<weights::TensorSpec> specs = wan_parameters(config);
    weights::WeightStore store = weights::WeightStore::bind(test::fill_model(specs), specs, "transformer");
    store.set_patches(plan.patches.at(stage));
    return store;
  }
  Tensors merge(const WanConfig& config, const Tensors& lora, double weight = 1) {
    const weights::LoraPlan plan = plan_wan_loras({config}, {{save(lora), weight}});
    const weights::WeightStore store = store_of(config, plan);
    Tensors out;
    for (const weights::TensorSpec& spec : wan_parameters(config)) out[spec.name] = store.load(spec.name, at::kFloat);
    return out;
  }
  std::string refusal(const WanConfig& config, const Tensors& lora) {
    return test::message_of<WeightError>([&] { plan_wan_loras({config}, {{save(lora)}}); });
  }
};

::testing::AssertionResult are_equal(const Tensors& actual, const Tensors& expected) {
  for (const auto& [name, tensor] : expected) {
    if (!at::equal(actual.at(name), tensor)) return ::testing::AssertionFailure() << name << " differs";
  }
  return ::testing::AssertionSuccess();
}

Tensors pair_of(const std::string& module, int64_t out = 24, int64_t in = 24, uint32_t k = 0) {
  return {{module + ".lora_A.weight", fill_input(k, {kRank, in})},
          {module + ".lora_B.weight", fill_input(k + 1, {out, kRank})}};
}

Tensors both(Tensors first, const Tensors& second) {
  first.insert(second.begin(), second.end());
  return first;
}

TEST_F(WanLora, gives_the_same_weights_under_every_naming) {
  const WanConfig config = image_config();
  const Tensors whole = merge(config, filled_lora(config, namings()[0]));
  const Tensors half = merge(config, filled_lora(config, namings()[0]), 0.5);
  const auto base = test::fill_model(wan_parameters(config));
  for (const auto& [diffusers, original] : layer_names()) {
    EXPECT_FALSE(at::equal(whole.at(diffusers + ".weight"), base->read(diffusers + ".weight"))) << diffusers;
  }
  for (const Naming& naming : namings()) {
    EXPECT_TRUE(are_equal(merge(config, filled_lora(config, naming)), whole)) << naming.label;
    EXPECT_TRUE(are_equal(merge(config, filled_lora(config, naming, kRank)), whole)) << naming.label;
    EXPECT_TRUE(are_equal(merge(config, filled_lora(config, naming, kRank / 2.0)), half)) << naming.label;
    const weights::LoraPlan plan = plan_wan_loras({config}, {{save(filled_lora(config, naming))}});
    ASSERT_EQ(plan.uses.size(), 1U);
    EXPECT_EQ(plan.uses[0].modules, static_cast<int64_t>(layer_names().size())) << naming.label;
    EXPECT_THAT(plan.uses[0].unmatched, IsEmpty()) << naming.label;
  }
}

TEST_F(WanLora, makes_the_model_predict_what_weights_merged_by_hand_do) {
  at::NoGradGuard no_grad;
  const WanConfig config = image_config();
  const std::vector<weights::TensorSpec> specs = wan_parameters(config);
  const Tensors lora = filled_lora(config, namings()[0]);
  const auto base = test::fill_model(specs);
  Tensors by_hand;
  for (const weights::TensorSpec& spec : specs) by_hand[spec.name] = base->read(spec.name).clone();
  for (const auto& [module, original] : layer_names()) {
    at::Tensor& weight = by_hand.at(module + ".weight");
    const at::Tensor up = lora.at("transformer." + module + ".lora_B.weight").to(at::kDouble).flatten(1);
    const at::Tensor down = lora.at("transformer." + module + ".lora_A.weight").to(at::kDouble).flatten(1);
    weight = (weight.to(at::kDouble) + 0.7 * at::matmul(up, down).view(weight.sizes())).to(at::kFloat);
  }
  const auto predict = [&](const weights::WeightStore& store) {
    auto cache = caching::make_step_cache("none");
    BlockRunner blocks{*cache};
    attention::AttentionEngine engine;
    ModelContext context{.attention = engine, .blocks = blocks, .branches = {Branch::kCond}};
    const auto model = make_wan_dit(config, store, at::kFloat, at::kCPU);
    const Conditioning conditioning{.text = {.states = fill_input(101, {16, 32}), .padded_tokens = 16},
                                    .image_tokens = fill_input(102, {5, 4})};
    return model->predict({.latents = fill_input(100, {1, 36, 3, 4, 6}),
                           .timesteps = at::full({1}, 750.0F),
                           .conditioning = {model->prepare(conditioning)}},
                          context);
  };
  const at::Tensor merged = predict(store_of(config, plan_wan_loras({config}, {{save(lora), 0.7}})));
  EXPECT_TRUE(test::matches(
      merged, predict(weights::WeightStore::bind(weights::make_memory_source(by_hand), specs, "transformer")),
      {.relative_l2 = 1e-5}));
  EXPECT_GT(test::relative_l2(merged, predict(weights::WeightStore::bind(base, specs, "transformer"))), 0.01);
}

TEST_F(WanLora, applies_changes_of_norms_biases_and_modulation_under_original_names) {
  const WanConfig config = image_config();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"blocks.1.norm3.diff", "blocks.1.norm2.weight"},
      {"blocks.1.norm3.diff_b", "blocks.1.norm2.bias"},
      {"blocks.0.self_attn.norm_q.diff", "blocks.0.attn1.norm_q.weight"},
      {"blocks.0.cross_attn.norm_k.diff", "blocks.0.attn2.norm_k.weight"},
      {"blocks.0.cross_attn.norm_k_img.diff", "blocks.0.attn2.norm_added_k.weight"},
      {"blocks.0.modulation.diff", "blocks.0.scale_shift_table"},
      {"head.modulation.diff", "scale_shift_table"},
      {"head.head.diff", "proj_out.weight"},
      {"img_emb.proj.0.diff", "condition_embedder.image_embedder.norm1.weight"},
      {"img_emb.proj.4.diff_b", "condition_embedder.image_embedder.norm2.bias"},
      {"time_projection.1.diff_b", "condition_embedder.time_proj.bias"},
      {"patch_embedding.diff", "patch_embedding.weight"}};
  Tensors lora;
  uint32_t k = 0;
  for (const auto& [key, name] : cases) lora["diffusion_model." + key] = fill_input(k++, shape_of(config, name));
  const Tensors merged = merge(config, lora);
  const auto base = test::fill_model(wan_parameters(config));
  for (const auto& [key, name] : cases) {
    EXPECT_TRUE(at::equal(merged.at(name), base->read(name) + lora.at("diffusion_model." + key))) << key;
  }
}

TEST_F(WanLora, keeps_norm2_of_an_original_file_away_from_our_norm2) {
  const Tensors lora =
      both(pair_of("diffusion_model.blocks.0.self_attn.q"), {{"diffusion_model.blocks.0.norm2.diff", at::ones({24})}});
  const weights::LoraPlan plan = plan_wan_loras({tiny_config()}, {{save(lora)}});
  EXPECT_THAT(plan.uses.at(0).unmatched, ElementsAre("diffusion_model.blocks.0.norm2.diff"));
}

TEST_F(WanLora, reports_unmatched_keys_and_uses_the_rest) {
  const Tensors lora =
      both(both(pair_of("transformer.blocks.0.attn1.to_q"), pair_of("transformer.blocks.9.attn1.to_q")),
           {{"transformer.strange", at::ones({1})}});
  const weights::LoraPlan plan = plan_wan_loras({tiny_config()}, {{save(lora)}});
  EXPECT_EQ(plan.uses.at(0).modules, 1);
  EXPECT_THAT(plan.uses[0].unmatched,
              ::testing::UnorderedElementsAre("transformer.blocks.9.attn1.to_q.lora_A.weight",
                                              "transformer.blocks.9.attn1.to_q.lora_B.weight", "transformer.strange"));
  EXPECT_THAT(messages, ::testing::Contains(AllOf(HasSubstr("3 keys match nothing"), HasSubstr("transformer.strange"),
                                                  HasSubstr("blocks.9.attn1.to_q.lora_A"))));
}

TEST_F(WanLora, refuses_a_file_that_matches_no_module) {
  EXPECT_THAT(refusal(tiny_config(), pair_of("lora_unet_down_blocks_0_attentions_0_proj_in")),
              AllOf(HasSubstr("lora.safetensors: no module of this LoRA fits"), HasSubstr("down_blocks_0")));
  EXPECT_THAT(refusal(tiny_config(), pair_of("transformer.blocks.0.attn2.add_k_proj")),
              HasSubstr("no module of this LoRA fits"));
  EXPECT_THAT(refusal(tiny_config(), pair_of("transformer_2.blocks.0.attn1.to_q")),
              HasSubstr("no module of this LoRA fits"));
}

TEST_F(WanLora, refuses_a_file_made_for_another_width) {
  EXPECT_THAT(refusal(tiny_config(), pair_of("diffusion_model.blocks.0.self_attn.q", 48, 48)),
              AllOf(HasSubstr("lora.safetensors: diffusion_model.blocks.0.self_attn.q: [48, 48] does not fit "
                              "blocks.0.attn1.to_q.weight [24, 24]")));
}

TEST_F(WanLora, refuses_two_names_of_one_module) {
  EXPECT_THAT(refusal(tiny_config(), both(pair_of("transformer.blocks.0.attn1.to_q"),
                                          pair_of("diffusion_model.blocks.0.self_attn.q"))),
              HasSubstr("are both blocks.0.attn1.to_q"));
}

TEST_F(WanLora, skips_what_this_model_does_not_have) {
  const WanConfig config = tiny_config();
  const Tensors q = pair_of("diffusion_model.blocks.0.self_attn.q");
  Tensors lora = both(q, pair_of("diffusion_model.blocks.0.cross_attn.k_img"));
  lora["diffusion_model.patch_embedding.diff"] = at::ones({24, 36, 1, 2, 2});  // of an image-to-video model
  lora = both(lora, pair_of("text_encoder.layers.0.q"));
  lora = both(lora, pair_of("lora_te_layers_0_q"));
  EXPECT_TRUE(are_equal(merge(config, lora), merge(config, q)));
  EXPECT_THAT(plan_wan_loras({config}, {{save(lora)}}).uses.at(0).unmatched, IsEmpty());
  EXPECT_THAT(messages, ::testing::Contains(HasSubstr("4 keys are for a text encoder")));
  EXPECT_THAT(messages, ::testing::Contains(HasSubstr("3 keys are for parts that this model does not have")));
}

TEST_F(WanLora, goes_to_the_expert_that_the_name_says_or_to_both) {
  const std::vector<WanConfig> experts(2, tiny_config());
  const std::vector<std::tuple<std::string, bool, bool>> cases = {{"style_high_noise_r64", true, false},
                                                                  {"style-HighNoise", true, false},
                                                                  {"style_low_noise", false, true},
                                                                  {"Style-Low-Noise-v2", false, true},
                                                                  {"style", true, true},
                                                                  {"high_noise_and_low_noise", true, true}};
  for (const auto& [name, is_first, is_second] : cases) {
    const weights::LoraPlan plan = plan_wan_loras(experts, {{save(pair_of("transformer.blocks.0.attn1.to_q"), name)}});
    ASSERT_EQ(plan.patches.size(), 2U);
    EXPECT_EQ(plan.patches[0]->contains("blocks.0.attn1.to_q.weight"), is_first) << name;
    EXPECT_EQ(plan.patches[1]->contains("blocks.0.attn1.to_q.weight"), is_second) << name;
    EXPECT_EQ(plan.uses.size(), static_cast<size_t>(is_first + is_second)) << name;
  }
  plan_wan_loras({tiny_config()}, {{folder / "style_low_noise.safetensors"}});
  EXPECT_THAT(messages, ::testing::Contains(HasSubstr("this model has one transformer")));
}

TEST_F(WanLora, splits_a_file_with_both_prefixes) {
  const Tensors first = pair_of("transformer.blocks.0.attn1.to_q"),
                second = pair_of("transformer_2.blocks.0.attn1.to_k");
  const std::map<std::string, std::string> header = {
      {"lora_adapter_metadata", R"({"transformer.r": 4, "transformer.lora_alpha": 4, "transformer_2.r": 4,
                                    "transformer_2.lora_alpha": 8})"}};
  const auto path = save(both(first, second), "style_low_noise", header);  // the keys count more than the name
  const weights::LoraPlan plan = plan_wan_loras({tiny_config(), tiny_config()}, {{path}});
  EXPECT_TRUE(plan.patches[0]->contains("blocks.0.attn1.to_q.weight"));
  EXPECT_FALSE(plan.patches[0]->contains("blocks.0.attn1.to_k.weight"));
  EXPECT_FALSE(plan.patches[1]->contains("blocks.0.attn1.to_q.weight"));
  EXPECT_TRUE(plan.patches[1]->contains("blocks.0.attn1.to_k.weight"));
  ASSERT_EQ(plan.uses.size(), 2U);
  EXPECT_EQ(plan.uses[0].max_scale, 1);
  EXPECT_EQ(plan.uses[1].max_scale, 2);
  EXPECT_EQ(plan.uses[1].stage, 1);
  EXPECT_THAT(plan.uses[0].unmatched, IsEmpty());

  const weights::LoraPlan one = plan_wan_loras({tiny_config()}, {{path}});
  EXPECT_TRUE(one.patches[0]->contains("blocks.0.attn1.to_q.weight"));
  EXPECT_FALSE(one.patches[0]->contains("blocks.0.attn1.to_k.weight"));
}

TEST_F(WanLora, adds_up_over_several_files) {
  const WanConfig config = tiny_config();
  const auto a = save(pair_of("transformer.blocks.0.attn1.to_q", 24, 24, 0), "a");
  const auto b = save(pair_of("lora_unet_blocks_0_self_attn_q", 24, 24, 2), "b");
  const std::string name = "blocks.0.attn1.to_q.weight";
  const auto load = [&](const std::vector<weights::Lora>& loras) {
    return store_of(config, plan_wan_loras({config}, loras)).load(name, at::kFloat);
  };
  const at::Tensor base = test::fill_model(wan_parameters(config))->read(name);
  EXPECT_TRUE(test::matches(load({{a, 0.5}, {b, 2}}), load({{a, 0.5}}) + load({{b, 2}}) - base, {.relative_l2 = 1e-6}));
  EXPECT_TRUE(test::matches(load({{a, 0.5}, {a, -0.5}}), base, {.relative_l2 = 1e-6}));
}

}  // namespace
}  // namespace strobe::models
