// Model folders: the original layout computes what the diffusers layout does; parts that do not belong together.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include <regex>

#include "attention/engine.h"
#include "core/error.h"
#include "models/model_folder.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/temp_folder.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// (pattern in a diffusers name, original); applied in this order.
using Renames = std::vector<std::pair<const char*, const char*>>;

const Renames kTransformer = {{"^scale_shift_table$", "head.modulation"},
                              {"^condition_embedder\\.time_embedder\\.linear_1", "time_embedding.0"},
                              {"^condition_embedder\\.time_embedder\\.linear_2", "time_embedding.2"},
                              {"^condition_embedder\\.time_proj", "time_projection.1"},
                              {"^condition_embedder\\.text_embedder\\.linear_1", "text_embedding.0"},
                              {"^condition_embedder\\.text_embedder\\.linear_2", "text_embedding.2"},
                              {"attn1", "self_attn"},
                              {"attn2", "cross_attn"},
                              {"\\.to_([qkv])\\.", ".$1."},
                              {"\\.to_out\\.0\\.", ".o."},
                              {"norm2", "norm3"},
                              {"ffn\\.net\\.0\\.proj", "ffn.0"},
                              {"ffn\\.net\\.2", "ffn.2"},
                              {"scale_shift_table", "modulation"},
                              {"^proj_out", "head.head"}};

const Renames kText = {{"^shared", "token_embedding"},
                       {"^encoder\\.final_layer_norm", "norm"},
                       {"^encoder\\.block\\.", "blocks."},
                       {"layer\\.0\\.layer_norm", "norm1"},
                       {"layer\\.1\\.layer_norm", "norm2"},
                       {"layer\\.0\\.SelfAttention\\.relative_attention_bias", "pos_embedding.embedding"},
                       {"layer\\.0\\.SelfAttention", "attn"},
                       {"layer\\.1\\.DenseReluDense\\.wi_0", "ffn.gate.0"},
                       {"layer\\.1\\.DenseReluDense\\.wi_1", "ffn.fc1"},
                       {"layer\\.1\\.DenseReluDense\\.wo", "ffn.fc2"}};

// Two residual blocks a level on the way down, three on the way up; then its resampler.
const Renames kVae = {{"^quant_conv", "conv1"},
                      {"^post_quant_conv", "conv2"},
                      {"\\.conv_in\\.", ".conv1."},
                      {"\\.norm_out\\.", ".head.0."},
                      {"\\.conv_out\\.", ".head.2."},
                      {"(resnets\\.\\d|down_blocks\\.\\d+)\\.norm1", "$1.residual.0"},
                      {"(resnets\\.\\d|down_blocks\\.\\d+)\\.conv1", "$1.residual.2"},
                      {"(resnets\\.\\d|down_blocks\\.\\d+)\\.norm2", "$1.residual.3"},
                      {"(resnets\\.\\d|down_blocks\\.\\d+)\\.conv2", "$1.residual.6"},
                      {"conv_shortcut", "shortcut"},
                      {"mid_block\\.resnets\\.0", "middle.0"},
                      {"mid_block\\.attentions\\.0", "middle.1"},
                      {"mid_block\\.resnets\\.1", "middle.2"},
                      {"down_blocks", "downsamples"}};

std::string renamed(std::string name, const Renames& renames) {
  for (const auto& [pattern, original] : renames) name = std::regex_replace(name, std::regex(pattern), original);
  static const std::regex level("^decoder\\.up_blocks\\.(\\d)\\.(resnets\\.(\\d)|upsamplers\\.0)(.*)$");
  std::smatch match;
  if (!std::regex_match(name, match, level)) return name;
  const int place = match[3].matched ? std::stoi(match[3]) : 3;
  return fmt::format("decoder.upsamples.{}{}", std::stoi(match[1]) * 4 + place, match[4].str());
}

void convert(const fs::path& from, const fs::path& to, const Renames& renames) {
  auto source = weights::open_weights(from);
  std::map<std::string, at::Tensor> tensors;
  for (const weights::TensorInfo& info : source->tensors()) {
    if (info.name != "encoder.embed_tokens.weight") tensors[renamed(info.name, renames)] = source->read(info.name);
  }
  weights::save_safetensors(to, tensors, {});
}

struct WanFolders : ::testing::Test {
  test::TempFolder folder;
  fs::path diffusers = test::golden_path("wan_a/checkpoint");

  fs::path make_original() {
    const fs::path root = folder / "original";
    fs::create_directories(root / "google");
    convert(diffusers / "transformer", root / "diffusion_pytorch_model.safetensors", kTransformer);
    convert(diffusers / "text_encoder", root / "models_t5_umt5-xxl-enc-bf16.safetensors", kText);
    convert(diffusers / "vae", root / "Wan2.1_VAE.safetensors", kVae);
    fs::copy(diffusers / "tokenizer", root / "google" / "umt5-xxl", fs::copy_options::recursive);
    folder.write(
        "original/config.json",
        R"({"_class_name": "WanModel", "dim": 64, "ffn_dim": 160, "num_heads": 2, "num_layers": 3, "in_dim": 16,
                     "out_dim": 16, "freq_dim": 256, "eps": 1e-6, "model_type": "t2v"})");
    return root;
  }

  fs::path copy() {
    fs::copy(diffusers, folder / "copy", fs::copy_options::recursive);
    return folder / "copy";
  }

  std::string refusal(const fs::path& root) {
    return test::message_of<Error>([&] { open_model_folder(root); });
  }
};

at::Tensor predict(const ModelFolder& folder, const at::Tensor& text) {
  auto dit = folder.load_dit(0, {});
  attention::AttentionEngine engine;
  auto cache = caching::make_step_cache("none");
  BlockRunner blocks(*cache);
  ModelContext context{.attention = engine, .blocks = blocks, .branches = {Branch::kCond}};
  return dit->predict({.latents = test::fill_input(1, {1, 16, 2, 4, 6}),
                       .timesteps = at::full({1}, 500.0),
                       .conditioning = {dit->prepare({.text = {.states = text, .padded_tokens = 512}})}},
                      context);
}

at::Tensor decode(const ModelFolder& folder) {
  std::vector<at::Tensor> chunks;
  folder.load_vae(at::kFloat, at::kCPU)->decode(test::fill_input(2, {16, 2, 2, 3}), {}, [&](const at::Tensor& frames) {
    chunks.push_back(frames);
  });
  return at::cat(chunks, 1);
}

TEST_F(WanFolders, an_original_folder_computes_what_the_diffusers_one_does) {
  const auto ours = open_model_folder(diffusers), original = open_model_folder(make_original());
  EXPECT_EQ(original->info().latent_channels, 16);
  EXPECT_EQ(original->info().dit_parameters, ours->info().dit_parameters);
  EXPECT_EQ(original->info().vae_parameters, ours->info().vae_parameters);
  EXPECT_EQ(original->info().text_encoder_parameters, ours->info().text_encoder_parameters);
  const std::vector<int32_t> ids = ours->load_tokenizer()->encode("a cat walks", 512);
  EXPECT_EQ(original->load_tokenizer()->encode("a cat walks", 512), ids);
  const at::Tensor text = ours->load_text_encoder(at::kFloat, at::kCPU)->encode(ids);
  EXPECT_TRUE(
      test::matches(original->load_text_encoder(at::kFloat, at::kCPU)->encode(ids), text, {.relative_l2 = 1e-6}));
  // Not bit for bit: tensors lie at other addresses in the other file, and matrix products take their tails elsewhere.
  EXPECT_TRUE(test::matches(predict(*original, text), predict(*ours, text), {.relative_l2 = 1e-6}));
  EXPECT_TRUE(test::matches(decode(*original), decode(*ours), {.relative_l2 = 1e-6}));
}

TEST_F(WanFolders, names_parts_that_do_not_belong_together) {
  const fs::path root = copy();
  const fs::path text_config = root / "text_encoder" / "config.json";
  ConfigNode text = weights::load_json(text_config);
  text.set("d_model", ConfigNode::integer(64));
  folder.write("copy/text_encoder/config.json", weights::to_json(text));
  EXPECT_THAT(refusal(root), AllOf(HasSubstr("width 64"), HasSubstr("the transformer reads 48")));

  folder.write("copy/model_index.json",
               R"({"_class_name": "WanPipeline", "boundary_ratio": 0.875, "transformer_2": [null, null]})");
  EXPECT_THAT(refusal(root), HasSubstr("transformer_2 and boundary_ratio belong together"));
}

TEST_F(WanFolders, names_the_part_that_is_missing) {
  const fs::path root = copy();
  fs::remove(root / "vae" / "config.json");
  EXPECT_THAT(refusal(root), HasSubstr("vae/config.json"));
  fs::remove_all(root / "transformer");
  EXPECT_THAT(refusal(root), HasSubstr("copy: no transformer/ folder, no vae/config.json;"));
  fs::remove(root / "tokenizer" / "tokenizer.json");
  EXPECT_THAT(refusal(root), Not(HasSubstr("tokenizer")));  // spiece.model will do
  fs::remove(root / "tokenizer" / "spiece.model");
  EXPECT_THAT(refusal(root), HasSubstr("no tokenizer/tokenizer.json or tokenizer/spiece.model"));
}

TEST_F(WanFolders, refuses_scheduler_settings_that_would_change_the_numbers) {
  const fs::path root = copy();
  for (const char* change : {R"("solver_order": 3)", R"("solver_type": "bh1")", R"("prediction_type": "epsilon")",
                             R"("lower_order_final": false)", R"("use_flow_sigmas": false)"}) {
    folder.write("copy/scheduler/scheduler_config.json",
                 fmt::format(R"({{"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0, {}}})", change));
    EXPECT_THAT(refusal(root), HasSubstr("supported")) << change;
  }
}

TEST_F(WanFolders, refuses_a_vae_that_is_none) {
  const fs::path root = make_original();
  weights::save_safetensors(root / "Wan2.1_VAE.safetensors", {{"a", at::zeros({1})}}, {});
  EXPECT_THAT(refusal(root), AllOf(HasSubstr("not an original Wan VAE"), HasSubstr("encoder.conv1.weight is missing")));
}

}  // namespace
}  // namespace strobe::models
