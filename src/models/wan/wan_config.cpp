#include "models/wan/wan_config.h"

#include "core/error.h"

namespace strobe::models {
namespace {

int64_t positive(const ConfigNode& node, const char* key, int64_t fallback) {
  const int64_t value = node.get_integer(key, fallback);
  if (value < 1 || value > (int64_t{1} << 24)) {
    const ConfigNode* child = node.find(key);
    (child ? *child : node).fail(fmt::format("{}: expected a positive integer, got {}", key, value));
  }
  return value;
}

WanConfig from_original(const ConfigNode& node) {
  WanConfig config;
  const int64_t dim = positive(node, "dim", 0);
  config.heads = positive(node, "num_heads", 0);
  if (dim % config.heads != 0) node.fail(fmt::format("dim {} is not a multiple of num_heads {}", dim, config.heads));
  config.head_width = dim / config.heads;
  config.layers = positive(node, "num_layers", 0);
  config.ffn_width = positive(node, "ffn_dim", 0);
  config.in_channels = positive(node, "in_dim", 16);
  config.out_channels = positive(node, "out_dim", 16);
  config.text_width = positive(node, "text_dim", 4096);
  config.frequency_width = positive(node, "freq_dim", 256);
  config.eps = node.get_number("eps", 1e-6);
  const std::string type = node.get_string("model_type", "t2v");
  // Only the 2.1 image models read a vision encoder; 2.2's i2v is told apart by its tensors (from_tensors).
  if (type == "i2v" || type == "flf2v") config.image_width = 1280;
  if (type == "flf2v") config.image_positions = 514;
  return config;
}

WanConfig from_diffusers(const ConfigNode& node) {
  WanConfig config;
  config.heads = positive(node, "num_attention_heads", 40);
  config.head_width = positive(node, "attention_head_dim", 128);
  config.layers = positive(node, "num_layers", 40);
  config.ffn_width = positive(node, "ffn_dim", 13824);
  config.in_channels = positive(node, "in_channels", 16);
  config.out_channels = positive(node, "out_channels", 16);
  config.text_width = positive(node, "text_dim", 4096);
  config.frequency_width = positive(node, "freq_dim", 256);
  config.eps = node.get_number("eps", 1e-6);
  config.rope_positions = positive(node, "rope_max_seq_len", 1024);
  config.has_cross_norm = node.get_bool("cross_attn_norm", true);
  config.image_width = node.get_integer("image_dim", 0);
  config.image_positions = node.get_integer("pos_embed_seq_len", 0);
  const std::vector<int64_t> patch = node.get_integers("patch_size", {1, 2, 2});
  if (patch.size() != 3) node.at("patch_size").fail("expected three integers [frames, rows, cols]");
  for (size_t axis = 0; axis < 3; ++axis) {
    if (patch[axis] < 1 || patch[axis] > 64) node.at("patch_size").fail("expected integers in [1, 64]");
    config.patch[axis] = patch[axis];
  }
  return config;
}

}  // namespace

WanConfig WanConfig::from_json(const ConfigNode& node) {
  if (!node.is_map()) node.fail(fmt::format("expected a map, got {}", node.describe()));
  const bool is_original = node.find("dim") || node.get_string("_class_name", "") == "WanModel";
  WanConfig config = is_original ? from_original(node) : from_diffusers(node);
  if (config.head_width % 2 != 0) {
    node.fail(fmt::format("head width {}: rotary positions need an even one", config.head_width));
  }
  if (config.frequency_width % 2 != 0)
    node.fail(fmt::format("freq_dim {}: expected an even number", config.frequency_width));
  if (config.image_width < 0 || config.image_positions < 0) node.fail("image_dim, pos_embed_seq_len: expected >= 0");
  if (!(config.eps > 0)) node.fail("eps: expected a positive number");
  return config;
}

}  // namespace strobe::models
