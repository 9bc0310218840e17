#include "models/vae/wan_vae_config.h"

#include "core/torch.h"

namespace strobe::models {
namespace {

const std::vector<double> kMean21 = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                                     0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
const std::vector<double> kStd21 = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
const std::vector<double> kMean22 = {
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174,  0.1838,  0.1557,  -0.1382, 0.0542,  0.2813,  0.0891,
    0.1570,  -0.0098, 0.0375,  -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,  0.2665,  -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109,  0.1567,  -0.0729, 0.0899,  -0.2799, -0.1230, -0.0313, -0.1649, 0.0117,  0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748,  0.0152,  0.1957,  0.1433,  -0.2944, 0.3573,  -0.0548, -0.1681, -0.0667};
const std::vector<double> kStd22 = {0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344,
                                    0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804,
                                    0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999,
                                    0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
                                    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744};

void require(bool is_met, const std::string& message) {
  if (!is_met) throw ConfigError("vae: " + message);
}

template <class Values, class Make>
ConfigNode list_node(const Values& values, Make make) {
  ConfigNode::List list;
  for (const auto value : values) list.push_back(make(value));
  return ConfigNode::list(std::move(list));
}

void validate_shortcuts(const WanVaeConfig& config) {
  for (int64_t level = 0; level < config.num_levels(); ++level) {
    const bool is_last = level == config.num_levels() - 1;
    const int64_t down = is_last ? 1 : (config.halves_frames[level] ? 8 : 4);
    require(config.encoder_in(level) * down % config.encoder_out(level) == 0,
            fmt::format("dim_mult: encoder level {} cannot average {} x {} channels to {}", level,
                        config.encoder_in(level), down, config.encoder_out(level)));
    if (is_last) continue;
    const int64_t up = config.doubles_frames(level) ? 8 : 4;
    require(config.decoder_out(level) * up % config.decoder_in(level) == 0,
            fmt::format("dim_mult: decoder level {} cannot spread {} channels over {} x {}", level,
                        config.decoder_in(level), config.decoder_out(level), up));
  }
}

}  // namespace

WanVaeConfig WanVaeConfig::wan21() {
  WanVaeConfig config;
  config.latents_mean = kMean21;
  config.latents_std = kStd21;
  return config;
}

WanVaeConfig WanVaeConfig::wan22() {
  WanVaeConfig config;
  config.base_width = 160;
  config.decoder_base_width = 256;
  config.latent_channels = 48;
  config.is_residual = true;
  config.in_channels = config.out_channels = 12;
  config.patch_size = 2;
  config.latents_mean = kMean22;
  config.latents_std = kStd22;
  return config;
}

WanVaeConfig WanVaeConfig::from_json(const ConfigNode& json) {
  WanVaeConfig config;
  config.base_width = json.get_integer("base_dim", config.base_width);
  config.decoder_base_width = json.get_integer("decoder_base_dim", config.base_width);
  config.latent_channels = json.get_integer("z_dim", config.latent_channels);
  config.width_factors = json.get_integers("dim_mult", config.width_factors);
  config.num_res_blocks = json.get_integer("num_res_blocks", config.num_res_blocks);
  config.halves_frames = json.get_bools("temperal_downsample", config.halves_frames);
  config.is_residual = json.get_bool("is_residual", config.is_residual);
  config.patch_size = json.get_integer("patch_size", 1);
  config.in_channels = json.get_integer("in_channels", config.in_channels);
  config.out_channels = json.get_integer("out_channels", config.out_channels);
  const bool is_22 = config.latent_channels == 48;
  config.latents_mean = json.get_numbers("latents_mean", is_22 ? kMean22 : kMean21);
  config.latents_std = json.get_numbers("latents_std", is_22 ? kStd22 : kStd21);
  if (const ConfigNode* scales = json.find("attn_scales"); scales && scales->is_list() && !scales->as_list().empty()) {
    scales->fail("attention inside the levels is not supported; expected []");
  }
  try {
    config.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(json.origin().empty() ? error.what() : fmt::format("{}: {}", json.origin(), error.what()));
  }
  for (const auto& [key, stride] : {std::pair<std::string, int64_t>{"scale_factor_temporal", config.temporal_stride()},
                                    {"scale_factor_spatial", config.spatial_stride()}}) {
    if (const ConfigNode* node = json.find(key); node && !node->is_null() && node->as_integer() != stride) {
      node->fail(fmt::format("expected {}, which follows from dim_mult, temperal_downsample and patch_size", stride));
    }
  }
  return config;
}

ConfigNode WanVaeConfig::to_json() const {
  ConfigNode node = ConfigNode::map({{"_class_name", ConfigNode::string("AutoencoderKLWan")},
                                     {"base_dim", ConfigNode::integer(base_width)},
                                     {"z_dim", ConfigNode::integer(latent_channels)},
                                     {"dim_mult", list_node(width_factors, &ConfigNode::integer)},
                                     {"num_res_blocks", ConfigNode::integer(num_res_blocks)},
                                     {"attn_scales", ConfigNode::list()},
                                     {"temperal_downsample", list_node(halves_frames, &ConfigNode::boolean)},
                                     {"dropout", ConfigNode::number(0.0)},
                                     {"latents_mean", list_node(latents_mean, &ConfigNode::number)},
                                     {"latents_std", list_node(latents_std, &ConfigNode::number)}});
  const WanVaeConfig published;
  const bool is_other_stride =
      temporal_stride() != published.temporal_stride() || spatial_stride() != published.spatial_stride();
  const auto set_integer = [&](bool is_needed, const char* key, int64_t value) {
    if (is_residual || is_needed) node.set(key, ConfigNode::integer(value));
  };
  set_integer(decoder_base_width != base_width, "decoder_base_dim", decoder_base_width);
  if (is_residual) node.set("is_residual", ConfigNode::boolean(true));
  set_integer(patch_size != published.patch_size, "in_channels", in_channels);
  set_integer(patch_size != published.patch_size, "out_channels", out_channels);
  set_integer(patch_size != published.patch_size, "patch_size", patch_size);
  set_integer(is_other_stride, "scale_factor_temporal", temporal_stride());
  set_integer(is_other_stride, "scale_factor_spatial", spatial_stride());
  return node;
}

void WanVaeConfig::validate() const {
  require(base_width > 0, fmt::format("base_dim: expected a positive number, got {}", base_width));
  require(decoder_base_width > 0,
          fmt::format("decoder_base_dim: expected a positive number, got {}", decoder_base_width));
  require(latent_channels > 0, fmt::format("z_dim: expected a positive number, got {}", latent_channels));
  require(num_res_blocks > 0, fmt::format("num_res_blocks: expected a positive number, got {}", num_res_blocks));
  require(!width_factors.empty() && width_factors.size() <= 8,
          fmt::format("dim_mult: expected 1 to 8 levels, got {}", width_factors.size()));
  for (int64_t factor : width_factors) {
    require(factor > 0, fmt::format("dim_mult: expected positive numbers, got {}", factor));
  }
  require(halves_frames.size() + 1 == width_factors.size(),
          fmt::format("temperal_downsample: expected {} entries (one less than dim_mult), got {}",
                      width_factors.size() - 1, halves_frames.size()));
  require(patch_size > 0, fmt::format("patch_size: expected a positive number, got {}", patch_size));
  const int64_t channels = 3 * patch_size * patch_size;
  require(in_channels == channels,
          fmt::format("in_channels: expected {} (3 colours x patch_size^2), got {}", channels, in_channels));
  require(out_channels == channels,
          fmt::format("out_channels: expected {} (3 colours x patch_size^2), got {}", channels, out_channels));
  require(static_cast<int64_t>(latents_mean.size()) == latent_channels,
          fmt::format("latents_mean: expected {} numbers (z_dim), got {}", latent_channels, latents_mean.size()));
  require(static_cast<int64_t>(latents_std.size()) == latent_channels,
          fmt::format("latents_std: expected {} numbers (z_dim), got {}", latent_channels, latents_std.size()));
  for (double value : latents_std) {
    require(value > 0 && std::isfinite(value), fmt::format("latents_std: expected positive numbers, got {}", value));
  }
  for (int64_t level = 0; level < num_levels(); ++level) {
    require(decoder_in(level) > 0, fmt::format("base_dim: too narrow to be halved before decoder level {}", level));
  }
  if (is_residual) validate_shortcuts(*this);
}

int64_t WanVaeConfig::temporal_stride() const {
  return int64_t{1} << std::count(halves_frames.begin(), halves_frames.end(), true);
}

int64_t WanVaeConfig::spatial_stride() const { return patch_size << (num_levels() - 1); }

int64_t WanVaeConfig::encoder_in(int64_t level) const {
  return base_width * (level == 0 ? 1 : width_factors[level - 1]);
}

int64_t WanVaeConfig::encoder_out(int64_t level) const { return base_width * width_factors[level]; }

int64_t WanVaeConfig::decoder_out(int64_t level) const {
  return decoder_base_width * width_factors[num_levels() - 1 - level];
}

int64_t WanVaeConfig::decoder_in(int64_t level) const {
  if (level == 0) return decoder_out(0);
  return is_residual ? decoder_out(level - 1) : decoder_out(level - 1) / 2;
}

}  // namespace strobe::models
