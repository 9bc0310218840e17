// Known architectures and the work that follows from their shapes, against the published tables and counted numbers.
#include "core/torch.h"
// After the precompiled header.
#include <gtest/gtest.h>

#include "core/error.h"
#include "models/vae/wan_vae_work.h"
#include "models/wan/wan_setup.h"

namespace strobe::models {
namespace {

std::unique_ptr<ModelArchitecture> open(const std::string& name) { return family_of_known(name)->open_known(name); }

TEST(KnownModels, have_the_parameters_of_the_published_files) {
  struct Row {
    const char* name;
    int64_t transformer, vae;
    size_t tensors;
  };
  const Row rows[] = {{"wan_1_3b", 1'418'996'800, 126'892'531, 825},
                      {"wan_14b", 14'288'491'584, 126'892'531, 1095},
                      {"wan22_a14b", 14'288'491'584, 126'892'531, 1095},
                      {"wan22_ti2v_5b", 4'999'787'712, 704'688'668, 825}};
  for (const Row& row : rows) {
    const auto model = open(row.name);
    EXPECT_EQ(model->info().dit_parameters, row.transformer) << row.name;
    EXPECT_EQ(model->info().vae_parameters, row.vae) << row.name;
    EXPECT_NEAR(static_cast<double>(model->info().text_encoder_parameters), 5.68e9, 0.005e9) << row.name;
    EXPECT_EQ(family_of_known(row.name)->known_files(row.name, "").weights[0].tensors.size(), row.tensors);
    EXPECT_EQ(model->stored_parts()[0].total_bytes(), 4 * row.transformer) << row.name;
  }
  const ModelInfo experts = open("wan22_a14b")->info();
  EXPECT_EQ(experts.stages, 2);
  EXPECT_EQ(experts.boundary_ratio, 0.875);
  EXPECT_EQ(experts.defaults.guidance_scale_2, 3.0);
  const ModelInfo small = open("wan22_ti2v_5b")->info();
  EXPECT_EQ(small.size_multiple, 32);
  EXPECT_EQ(small.defaults.flow_shift, 5.0);
  EXPECT_TRUE(small.has_token_timesteps);
}

TEST(KnownModels, answer_an_unknown_name_with_the_nearest) {
  try {
    family_of_known("wan_14bb");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'wan_14b'?"), std::string::npos) << error.what();
  }
}

TEST(ModelWork, counts_the_tokens_and_pairs_of_the_published_sizes) {
  const auto model = open("wan_1_3b");
  const ModelWork small = model->compute_work({.num_frames = 81, .height = 480, .width = 832, .text_tokens = 512});
  EXPECT_EQ(small.forward.grid.video_tokens(), 32'760);
  // 30 layers x (q k^T and p v) x 2 x 32760^2 x 1536.
  EXPECT_EQ(small.forward.self_attention_flops, 197'815'468'032'000.0);
  // 30 layers x 4 x 32760 x 512 x 1536.
  EXPECT_EQ(small.forward.cross_attention_flops, 3'091'621'478'400.0);
  const ModelWork large = model->compute_work({.num_frames = 81, .height = 720, .width = 1280, .text_tokens = 512});
  EXPECT_EQ(large.forward.grid.video_tokens(), 75'600);
  // A prompt shorter than the padding has one more key: the one that stands for all padding.
  const ModelWork brief = model->compute_work({.num_frames = 81, .height = 480, .width = 832, .text_tokens = 9});
  EXPECT_EQ(brief.forward.cross_attention_flops, small.forward.cross_attention_flops / 512 * 10);
  EXPECT_THROW(model->compute_work({.num_frames = 80, .height = 480, .width = 832, .text_tokens = 9}), ShapeError);
}

// The numbers below are those of torch.utils.flop_counter.FlopCounterMode (torch 2.11, SDPA as its math form) around
// diffusers 0.37.0's WanTransformer3DModel and AutoencoderKLWan and transformers 4.57.6's UMT5EncoderModel, built on
// the same configurations:
//   with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as c: model(...)
//   c.get_total_flops()
WanSetup tiny_setup(int64_t text_tokens) {
  WanSetup setup;
  WanConfig dit;
  dit.heads = 2, dit.head_width = 12, dit.layers = 2, dit.ffn_width = 32, dit.text_width = 32;
  setup.transformers = {dit};
  setup.vae = WanVaeConfig::wan21();
  Umt5Config& text = setup.text_encoder;
  text.vocab_size = 64, text.d_model = 32, text.d_kv = 8, text.d_ff = 40, text.num_heads = 3, text.num_layers = 2;
  setup.info.padded_text_tokens = text_tokens;
  return setup;
}

double transformer_flops(const WanSetup& setup, int64_t text_tokens) {
  const ForwardWork work =
      compute_wan_work(setup, {.num_frames = 9, .height = 32, .width = 48, .text_tokens = text_tokens}).forward;
  return work.self_attention_flops + work.cross_attention_flops + work.linear_flops + work.prepare_flops;
}

TEST(ModelWork, of_the_transformer_is_what_torch_counts) {
  EXPECT_EQ(transformer_flops(tiny_setup(16), 16), 724'608.0);
  WanSetup image = tiny_setup(512);
  image.transformers[0].in_channels = 36, image.transformers[0].image_width = 4;
  EXPECT_EQ(transformer_flops(image, 512), 8'256'736.0);
}

TEST(ModelWork, of_the_text_encoder_is_what_torch_counts) {
  EXPECT_EQ(compute_umt5_work(tiny_setup(16).text_encoder, 10, 4).flops, 295'680.0);
}

double decode_flops(const WanVaeConfig& config, int64_t rows, int64_t cols) {
  double sum = 0;
  for (const DecodeLevel& level : compute_wan_decode_work(config, 3, rows, cols).levels) {
    EXPECT_LE(level.run_flops, level.flops) << level.name;
    EXPECT_GT(level.run_flops, 0) << level.name;
    sum += level.flops;
  }
  return sum;
}

TEST(ModelWork, of_both_decoders_is_what_torch_counts) {
  WanVaeConfig first = WanVaeConfig::wan21();
  first.base_width = first.decoder_base_width = 8, first.latent_channels = 4;
  EXPECT_EQ(decode_flops(first, 3, 4), 426'072'192.0);
  WanVaeConfig second = WanVaeConfig::wan22();
  second.base_width = 4, second.decoder_base_width = 8, second.latent_channels = 8;
  EXPECT_EQ(decode_flops(second, 2, 3), 272'468'736.0);
}

}  // namespace
}  // namespace strobe::models
