#include "models/vae/wan_vae_config.h"

#include <gmock/gmock.h>

#include <set>

#include "core/torch.h"
#include "tests/models/vae/tiny_vaes.h"

namespace strobe::models {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

ConfigNode integers(const std::vector<int64_t>& values) {
  ConfigNode::List list;
  for (int64_t value : values) list.push_back(ConfigNode::integer(value));
  return ConfigNode::list(std::move(list));
}

TEST(WanVaeConfig, an_empty_file_is_wan21) {
  const WanVaeConfig config = WanVaeConfig::from_json(ConfigNode::map());
  EXPECT_EQ(config.temporal_stride(), 4);
  EXPECT_EQ(config.spatial_stride(), 8);
  EXPECT_EQ(config.latents_mean, WanVaeConfig::wan21().latents_mean);
  EXPECT_EQ(config.latents_std.size(), 16U);
}

TEST(WanVaeConfig, the_decoder_is_as_wide_as_the_encoder_unless_told) {
  ConfigNode json = ConfigNode::map();
  json.set("base_dim", ConfigNode::integer(24));
  json.set("decoder_base_dim", ConfigNode::null());
  EXPECT_EQ(WanVaeConfig::from_json(json).decoder_base_width, 24);
  json.set("decoder_base_dim", ConfigNode::integer(32));
  EXPECT_EQ(WanVaeConfig::from_json(json).decoder_base_width, 32);
}

TEST(WanVaeConfig, parameters_of_the_published_models) {
  const auto wan21 = wan_vae_parameters(WanVaeConfig::wan21());
  EXPECT_EQ(wan21.size(), 194U);
  EXPECT_EQ(weights::count_parameters(wan21), 126'892'531);
  const auto wan22 = wan_vae_parameters(WanVaeConfig::wan22());
  EXPECT_EQ(wan22.size(), 196U);
  EXPECT_EQ(weights::count_parameters(wan22), 704'688'668);
}

TEST(WanVaeConfig, names_what_cannot_be_built) {
  const auto message_for = [](const std::string& key, ConfigNode value) {
    ConfigNode json = ConfigNode::map();
    json.set(key, std::move(value));
    try {
      WanVaeConfig::from_json(json);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message_for("base_dim", ConfigNode::integer(0)),
              HasSubstr("base_dim: expected a positive number, got 0"));
  EXPECT_THAT(message_for("z_dim", ConfigNode::integer(12)), HasSubstr("latents_mean: expected 12 numbers"));
  EXPECT_THAT(message_for("dim_mult", integers({1, 2})), HasSubstr("temperal_downsample: expected 1 entries"));
  EXPECT_THAT(message_for("dim_mult", integers({1, 0, 2, 2})), HasSubstr("dim_mult: expected positive numbers, got 0"));
  EXPECT_THAT(message_for("patch_size", ConfigNode::integer(2)), HasSubstr("in_channels: expected 12"));
  EXPECT_THAT(message_for("base_dim", ConfigNode::integer(1)), HasSubstr("no error"));
  EXPECT_THAT(message_for("scale_factor_spatial", ConfigNode::integer(16)), HasSubstr("expected 8"));
  EXPECT_THAT(message_for("attn_scales", integers({1})), HasSubstr("attention inside the levels"));
}

TEST(WanVaeConfig, what_is_written_is_read_back) {
  for (const WanVaeConfig& config : {WanVaeConfig::wan21(), WanVaeConfig::wan22(), patched_plain(), odd_plain()}) {
    const ConfigNode json = config.to_json();
    const WanVaeConfig read = WanVaeConfig::from_json(json);
    EXPECT_EQ(read.base_width, config.base_width);
    EXPECT_EQ(read.decoder_base_width, config.decoder_base_width);
    EXPECT_EQ(read.latent_channels, config.latent_channels);
    EXPECT_EQ(read.width_factors, config.width_factors);
    EXPECT_EQ(read.num_res_blocks, config.num_res_blocks);
    EXPECT_EQ(read.halves_frames, config.halves_frames);
    EXPECT_EQ(read.is_residual, config.is_residual);
    EXPECT_EQ(read.in_channels, config.in_channels);
    EXPECT_EQ(read.out_channels, config.out_channels);
    EXPECT_EQ(read.patch_size, config.patch_size);
    EXPECT_EQ(read.latents_mean, config.latents_mean);
    EXPECT_EQ(read.latents_std, config.latents_std);
    // Other readers take 4 and 8 for what is absent.
    EXPECT_EQ(json.get_integer("scale_factor_temporal", 4), config.temporal_stride());
    EXPECT_EQ(json.get_integer("scale_factor_spatial", 8), config.spatial_stride());
  }
}

TEST(WanVaeConfig, refuses_shortcuts_whose_channels_do_not_divide) {
  WanVaeConfig config = WanVaeConfig::wan22();
  config.width_factors = {1, 7, 4, 4};
  EXPECT_THAT([&] { config.validate(); }, ThrowsMessage<ConfigError>(HasSubstr("encoder level 1")));
}

TEST(WanVaeNames, diffusers_files_need_no_renaming) {
  const WanVaeConfig config = tiny_21();
  EXPECT_FALSE(wan_vae_rename(config, *test::fill_model(wan_vae_parameters(config))));
}

TEST(WanVaeNames, original_names_become_diffusers_names) {
  const auto original = weights::make_memory_source({{"conv1.weight", at::zeros({1})}});
  const weights::Rename rename21 = wan_vae_rename(WanVaeConfig::wan21(), *original);
  ASSERT_TRUE(rename21);
  const std::vector<std::pair<std::string, std::string>> pairs21 = {
      {"conv1.weight", "quant_conv.weight"},
      {"conv2.bias", "post_quant_conv.bias"},
      {"encoder.conv1.weight", "encoder.conv_in.weight"},
      {"encoder.downsamples.0.residual.0.gamma", "encoder.down_blocks.0.norm1.gamma"},
      {"encoder.downsamples.3.shortcut.weight", "encoder.down_blocks.3.conv_shortcut.weight"},
      {"encoder.downsamples.5.time_conv.bias", "encoder.down_blocks.5.time_conv.bias"},
      {"encoder.middle.0.residual.6.bias", "encoder.mid_block.resnets.0.conv2.bias"},
      {"decoder.middle.1.to_qkv.weight", "decoder.mid_block.attentions.0.to_qkv.weight"},
      {"decoder.middle.1.norm.gamma", "decoder.mid_block.attentions.0.norm.gamma"},
      {"decoder.middle.2.residual.3.gamma", "decoder.mid_block.resnets.1.norm2.gamma"},
      {"decoder.upsamples.3.resample.1.weight", "decoder.up_blocks.0.upsamplers.0.resample.1.weight"},
      {"decoder.upsamples.4.shortcut.bias", "decoder.up_blocks.1.resnets.0.conv_shortcut.bias"},
      {"decoder.upsamples.14.residual.2.weight", "decoder.up_blocks.3.resnets.2.conv1.weight"},
      {"decoder.head.0.gamma", "decoder.norm_out.gamma"},
      {"decoder.head.2.weight", "decoder.conv_out.weight"},
      {"something.else", "something.else"},
  };
  for (const auto& [from, to] : pairs21) EXPECT_EQ(rename21(from), to);
  const weights::Rename rename22 = wan_vae_rename(WanVaeConfig::wan22(), *original);
  const std::vector<std::pair<std::string, std::string>> pairs22 = {
      {"encoder.downsamples.1.downsamples.0.shortcut.weight", "encoder.down_blocks.1.resnets.0.conv_shortcut.weight"},
      {"encoder.downsamples.1.downsamples.2.time_conv.weight", "encoder.down_blocks.1.downsampler.time_conv.weight"},
      {"decoder.upsamples.2.upsamples.2.residual.6.bias", "decoder.up_blocks.2.resnets.2.conv2.bias"},
      {"decoder.upsamples.2.upsamples.3.resample.1.bias", "decoder.up_blocks.2.upsampler.resample.1.bias"},
  };
  for (const auto& [from, to] : pairs22) EXPECT_EQ(rename22(from), to);
}

TEST(WanVaeNames, every_parameter_has_a_name_of_its_own) {
  for (const WanVaeConfig& config : {tiny_21(), tiny_21b(), tiny_22(), WanVaeConfig::wan22()}) {
    std::set<std::string> names;
    for (const weights::TensorSpec& spec : wan_vae_parameters(config)) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    }
  }
}

}  // namespace
}  // namespace strobe::models
