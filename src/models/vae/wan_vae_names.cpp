// Tensor names of the Wan autoencoders: the diffusers list and the translation of the original names.
#include <charconv>

#include "core/torch.h"
#include "models/vae/wan_vae_config.h"
#include "weights/named_shapes.h"

namespace strobe::models {
namespace {

class ParameterList {
 public:
  void add(const std::string& name, std::vector<int64_t> shape) { specs.push_back({name, std::move(shape)}); }

  void add_conv(const std::string& name, std::vector<int64_t> shape) {
    const int64_t width = shape[0];
    add(name + ".weight", std::move(shape));
    add(name + ".bias", {width});
  }

  void add_res_block(const std::string& name, int64_t in, int64_t out) {
    add(name + ".norm1.gamma", {in, 1, 1, 1});
    add_conv(name + ".conv1", {out, in, 3, 3, 3});
    add(name + ".norm2.gamma", {out, 1, 1, 1});
    add_conv(name + ".conv2", {out, out, 3, 3, 3});
    if (in != out) add_conv(name + ".conv_shortcut", {out, in, 1, 1, 1});
  }

  void add_mid_block(const std::string& name, int64_t width) {
    add_res_block(name + ".resnets.0", width, width);
    add(name + ".attentions.0.norm.gamma", {width, 1, 1});
    add_conv(name + ".attentions.0.to_qkv", {3 * width, width, 1, 1});
    add_conv(name + ".attentions.0.proj", {width, width, 1, 1});
    add_res_block(name + ".resnets.1", width, width);
  }

  void add_head(const std::string& name, int64_t in, int64_t out) {
    add(name + ".norm_out.gamma", {in, 1, 1, 1});
    add_conv(name + ".conv_out", {out, in, 3, 3, 3});
  }

  std::vector<weights::TensorSpec> specs;
};

void add_encoder(ParameterList& list, const WanVaeConfig& config) {
  list.add_conv("encoder.conv_in", {config.encoder_in(0), config.in_channels, 3, 3, 3});
  int64_t flat = 0;
  for (int64_t level = 0; level < config.num_levels(); ++level) {
    const int64_t out = config.encoder_out(level);
    const auto place = [&](int64_t block, const char* residual) {
      return config.is_residual ? fmt::format("encoder.down_blocks.{}.{}", level, residual) +
                                      (block < config.num_res_blocks ? std::to_string(block) : "")
                                : fmt::format("encoder.down_blocks.{}", flat++);
    };
    for (int64_t block = 0; block < config.num_res_blocks; ++block) {
      list.add_res_block(place(block, "resnets."), block == 0 ? config.encoder_in(level) : out, out);
    }
    if (level == config.num_levels() - 1) break;
    const std::string name = place(config.num_res_blocks, "downsampler");
    list.add_conv(name + ".resample.1", {out, out, 3, 3});
    if (config.halves_frames[level]) list.add_conv(name + ".time_conv", {out, out, 3, 1, 1});
  }
  const int64_t width = config.encoder_out(config.num_levels() - 1);
  list.add_mid_block("encoder.mid_block", width);
  list.add_head("encoder", width, 2 * config.latent_channels);
}

void add_decoder(ParameterList& list, const WanVaeConfig& config) {
  list.add_conv("decoder.conv_in", {config.decoder_in(0), config.latent_channels, 3, 3, 3});
  list.add_mid_block("decoder.mid_block", config.decoder_in(0));
  for (int64_t level = 0; level < config.num_levels(); ++level) {
    const std::string name = fmt::format("decoder.up_blocks.{}", level);
    const int64_t out = config.decoder_out(level);
    for (int64_t block = 0; block <= config.num_res_blocks; ++block) {
      list.add_res_block(fmt::format("{}.resnets.{}", name, block), block == 0 ? config.decoder_in(level) : out, out);
    }
    if (level == config.num_levels() - 1) break;
    const std::string up = name + (config.is_residual ? ".upsampler" : ".upsamplers.0");
    list.add_conv(up + ".resample.1", {config.decoder_in(level + 1), out, 3, 3});
    if (config.doubles_frames(level)) list.add_conv(up + ".time_conv", {2 * out, out, 3, 1, 1});
  }
  list.add_head("decoder", config.decoder_out(config.num_levels() - 1), config.out_channels);
}

std::vector<std::string> split(std::string_view name) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    parts.emplace_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::optional<int64_t> parse_index(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string join(const std::vector<std::string>& parts, size_t first) {
  std::string text;
  for (size_t i = first; i < parts.size(); ++i) text += "." + parts[i];
  return text;
}

// What follows the block's name: "residual.2.weight" -> ".conv1.weight"; resample, time_conv and attention stay.
std::string rename_leaf(const std::vector<std::string>& parts, size_t first) {
  if (first + 1 < parts.size() && parts[first] == "residual") {
    static const std::map<std::string, std::string> kLayers = {
        {"0", ".norm1"}, {"2", ".conv1"}, {"3", ".norm2"}, {"6", ".conv2"}};
    const auto layer = kLayers.find(parts[first + 1]);
    if (layer != kLayers.end()) return layer->second + join(parts, first + 2);
  }
  if (first < parts.size() && parts[first] == "shortcut") return ".conv_shortcut" + join(parts, first + 1);
  return join(parts, first);
}

// "downsamples.4.residual..." or, with shortcuts around levels, "downsamples.1.downsamples.0.residual...".
std::optional<std::string> rename_level(const WanVaeConfig& config, const std::vector<std::string>& parts) {
  const bool is_encoder = parts[1] == "downsamples";
  const std::optional<int64_t> n = parse_index(parts[2]);
  if (!n) return std::nullopt;
  const int64_t blocks = config.num_res_blocks + (is_encoder ? 0 : 1);
  if (config.is_residual) {
    if (parts.size() < 5 || parts[3] != parts[1]) return std::nullopt;
    const std::optional<int64_t> block = parse_index(parts[4]);
    if (!block) return std::nullopt;
    const std::string name = fmt::format("{}.{}.{}.", parts[0], is_encoder ? "down_blocks" : "up_blocks", *n);
    const std::string resampler = is_encoder ? "downsampler" : "upsampler";
    return name + (*block < blocks ? fmt::format("resnets.{}", *block) : resampler) + rename_leaf(parts, 5);
  }
  if (is_encoder) return fmt::format("encoder.down_blocks.{}{}", *n, rename_leaf(parts, 3));
  const int64_t level = *n / (blocks + 1), block = *n % (blocks + 1);
  const std::string place = block < blocks ? fmt::format("resnets.{}", block) : "upsamplers.0";
  return fmt::format("decoder.up_blocks.{}.{}{}", level, place, rename_leaf(parts, 3));
}

std::optional<std::string> rename_original(const WanVaeConfig& config, std::string_view name) {
  const std::vector<std::string> parts = split(name);
  const std::string as_is(name);
  if (parts[0] == "conv1") return "quant_conv" + join(parts, 1);
  if (parts[0] == "conv2") return "post_quant_conv" + join(parts, 1);
  if (parts.size() < 3 || (parts[0] != "encoder" && parts[0] != "decoder")) return as_is;
  if (parts[1] == "conv1") return parts[0] + ".conv_in" + join(parts, 2);
  if (parts[1] == "head") return parts[0] + (parts[2] == "0" ? ".norm_out" : ".conv_out") + join(parts, 3);
  if (parts[1] == "middle") {
    static const std::map<std::string, std::string> kBlocks = {
        {"0", "resnets.0"}, {"1", "attentions.0"}, {"2", "resnets.1"}};
    const auto block = kBlocks.find(parts[2]);
    if (block != kBlocks.end()) return parts[0] + ".mid_block." + block->second + rename_leaf(parts, 3);
  }
  if (parts[1] == "downsamples" || parts[1] == "upsamples") {
    // An unknown name stays as it is and is reported as unexpected.
    if (std::optional<std::string> renamed = rename_level(config, parts)) return renamed;
  }
  return as_is;
}

// What the original encoder's list of blocks says about the levels.
struct Levels {
  std::vector<int64_t> widths;
  std::vector<bool> halves_frames;
  int64_t num_res_blocks = 0;
};

// "encoder.downsamples.N" counts blocks and downsamplers of all levels in a row, "....L.downsamples.N" those of level L.
Levels read_levels(const weights::NamedShapes& shapes, bool is_residual) {
  Levels levels;
  const std::string list = "encoder.downsamples.";
  const auto take = [&](const std::string& block) {
    if (shapes.contains(block + ".resample.1.weight")) {
      levels.halves_frames.push_back(shapes.contains(block + ".time_conv.weight"));
      return;
    }
    if (levels.widths.size() == levels.halves_frames.size()) levels.widths.push_back(0);
    levels.widths.back() = shapes.at(block + ".residual.2.weight", 5)[0];
    if (levels.widths.size() == 1) ++levels.num_res_blocks;
  };
  for (int64_t i = 0; i < shapes.count_blocks(list); ++i) {
    const std::string place = list + std::to_string(i);
    if (!is_residual) {
      take(place);
      continue;
    }
    for (int64_t j = 0; j < shapes.count_blocks(place + ".downsamples."); ++j) {
      take(fmt::format("{}.downsamples.{}", place, j));
    }
  }
  return levels;
}

}  // namespace

WanVaeConfig WanVaeConfig::from_tensors(const weights::TensorSource& source) {
  const weights::NamedShapes shapes(source, {}, "an original Wan VAE");
  const std::vector<int64_t>& encoder_in = shapes.at("encoder.conv1.weight", 5);
  const int64_t z = shapes.at("decoder.conv1.weight", 5)[1];
  const bool is_residual = shapes.contains_prefix("encoder.downsamples.0.downsamples.");
  WanVaeConfig config = z == 48 ? wan22() : wan21();
  config.is_residual = is_residual;
  config.latent_channels = z;
  config.base_width = encoder_in[0];
  config.in_channels = encoder_in[1];
  config.out_channels = shapes.at("decoder.head.2.weight", 5)[0];
  config.patch_size = std::max<int64_t>(1, std::llround(std::sqrt(static_cast<double>(config.in_channels) / 3.0)));
  const Levels levels = read_levels(shapes, is_residual);
  config.num_res_blocks = levels.num_res_blocks;
  config.halves_frames = levels.halves_frames;
  config.width_factors.clear();
  for (int64_t width : levels.widths) config.width_factors.push_back(std::max<int64_t>(1, width / config.base_width));
  const int64_t finest = config.width_factors.empty() ? 1 : config.width_factors.front();
  config.decoder_base_width = std::max<int64_t>(1, shapes.at("decoder.head.0.gamma", 4)[0] / finest);
  config.validate();
  return config;
}

std::vector<weights::TensorSpec> wan_vae_parameters(const WanVaeConfig& config) {
  ParameterList list;
  const int64_t z = config.latent_channels;
  add_encoder(list, config);
  list.add_conv("quant_conv", {2 * z, 2 * z, 1, 1, 1});
  list.add_conv("post_quant_conv", {z, z, 1, 1, 1});
  add_decoder(list, config);
  return std::move(list.specs);
}

weights::Rename wan_vae_rename(const WanVaeConfig& config, const weights::TensorSource& source) {
  for (const weights::TensorInfo& info : source.tensors()) {
    if (info.name == "quant_conv.weight") return {};
  }
  return [config](std::string_view name) { return rename_original(config, name); };
}

}  // namespace strobe::models
