// Names and shapes of Wan's tensors, and the way from other people's names to them.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "models/wan/wan_config.h"
#include "weights/named_shapes.h"

namespace strobe::models {
namespace {

using weights::TensorSpec;

void add_linear(std::vector<TensorSpec>& specs, const std::string& name, int64_t out, int64_t in) {
  specs.push_back({name + ".weight", {out, in}});
  specs.push_back({name + ".bias", {out}});
}

void add_norm(std::vector<TensorSpec>& specs, const std::string& name, int64_t width) {
  specs.push_back({name + ".weight", {width}});
  specs.push_back({name + ".bias", {width}});
}

void add_attention(std::vector<TensorSpec>& specs, const std::string& name, int64_t d, bool has_image) {
  for (const char* part : {"to_q", "to_k", "to_v", "to_out.0"}) add_linear(specs, name + "." + part, d, d);
  specs.push_back({name + ".norm_q.weight", {d}});
  specs.push_back({name + ".norm_k.weight", {d}});
  if (!has_image) return;
  add_linear(specs, name + ".add_k_proj", d, d);
  add_linear(specs, name + ".add_v_proj", d, d);
  specs.push_back({name + ".norm_added_k.weight", {d}});
}

void add_image_embedder(std::vector<TensorSpec>& specs, const WanConfig& config) {
  const std::string name = "condition_embedder.image_embedder.";
  add_norm(specs, name + "norm1", config.image_width);
  add_linear(specs, name + "ff.net.0.proj", config.image_width, config.image_width);
  add_linear(specs, name + "ff.net.2", config.width(), config.image_width);
  add_norm(specs, name + "norm2", config.width());
  if (config.image_positions > 0)
    specs.push_back({name + "pos_embed", {1, config.image_positions, config.image_width}});
}

// (original prefix or part, diffusers prefix or part)
using Pair = std::array<std::string_view, 2>;

constexpr Pair kTopNames[] = {
    {"time_embedding.0.", "condition_embedder.time_embedder.linear_1."},
    {"time_embedding.2.", "condition_embedder.time_embedder.linear_2."},
    {"time_projection.1.", "condition_embedder.time_proj."},
    {"text_embedding.0.", "condition_embedder.text_embedder.linear_1."},
    {"text_embedding.2.", "condition_embedder.text_embedder.linear_2."},
    {"img_emb.proj.0.", "condition_embedder.image_embedder.norm1."},
    {"img_emb.proj.1.", "condition_embedder.image_embedder.ff.net.0.proj."},
    {"img_emb.proj.3.", "condition_embedder.image_embedder.ff.net.2."},
    {"img_emb.proj.4.", "condition_embedder.image_embedder.norm2."},
    {"img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"},
    {"head.modulation", "scale_shift_table"},
    {"head.head.", "proj_out."},
};

constexpr Pair kAttentionNames[] = {
    {"q.", "to_q."},           {"k.", "to_k."},           {"v.", "to_v."},
    {"o.", "to_out.0."},       {"norm_q.", "norm_q."},    {"norm_k.", "norm_k."},
    {"k_img.", "add_k_proj."}, {"v_img.", "add_v_proj."}, {"norm_k_img.", "norm_added_k."},
};

// The original's norm3 is the affine one before cross attention, which diffusers calls norm2.
constexpr Pair kBlockNames[] = {
    {"modulation", "scale_shift_table"},
    {"norm3.", "norm2."},
    {"ffn.0.", "ffn.net.0.proj."},
    {"ffn.2.", "ffn.net.2."},
};

std::optional<std::string> replace_prefix(std::string_view name, const Pair& pair) {
  if (!name.starts_with(pair[0])) return std::nullopt;
  return std::string(pair[1]) + std::string(name.substr(pair[0].size()));
}

std::string rename_block_part(std::string_view part) {
  for (const Pair& attention : {Pair{"self_attn.", "attn1."}, Pair{"cross_attn.", "attn2."}}) {
    if (!part.starts_with(attention[0])) continue;
    const std::string_view rest = part.substr(attention[0].size());
    for (const Pair& pair : kAttentionNames) {
      if (auto renamed = replace_prefix(rest, pair)) return std::string(attention[1]) + *renamed;
    }
  }
  for (const Pair& pair : kBlockNames) {
    if (auto renamed = replace_prefix(part, pair)) return *renamed;
  }
  return std::string(part);
}

}  // namespace

std::string wan_rename_original(std::string_view name) {
  if (name.starts_with("blocks.")) {
    const size_t dot = name.find('.', 7);
    if (dot == std::string_view::npos) return std::string(name);
    return std::string(name.substr(0, dot + 1)) + rename_block_part(name.substr(dot + 1));
  }
  for (const Pair& pair : kTopNames) {
    if (auto renamed = replace_prefix(name, pair)) return *renamed;
  }
  return std::string(name);
}

std::vector<std::string> wan_original_modules(int64_t layers) {
  const auto module = [](std::string_view prefix) {
    return std::string(prefix.substr(0, prefix.size() - (prefix.ends_with('.') ? 1 : 0)));
  };
  std::vector<std::string> names = {"patch_embedding"};
  for (const Pair& pair : kTopNames) names.push_back(module(pair[0]));
  for (int64_t i = 0; i < layers; ++i) {
    const std::string block = fmt::format("blocks.{}.", i);
    for (const Pair& pair : kBlockNames) names.push_back(block + module(pair[0]));
    for (const char* attention : {"self_attn.", "cross_attn."}) {
      for (const Pair& pair : kAttentionNames) names.push_back(block + attention + module(pair[0]));
    }
  }
  return names;
}

namespace {

std::string_view strip_prefix(std::string_view name) {
  for (std::string_view prefix : {"model.diffusion_model.", "diffusion_model."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

bool is_leftover(std::string_view name) {
  return name.starts_with("rope.") || name == "freqs" || name.find(".norm_added_q.") != std::string_view::npos;
}

}  // namespace

std::vector<TensorSpec> wan_parameters(const WanConfig& config) {
  const int64_t d = config.width();
  const int64_t patch_volume = config.patch[0] * config.patch[1] * config.patch[2];
  std::vector<TensorSpec> specs;
  specs.push_back(
      {"patch_embedding.weight", {d, config.in_channels, config.patch[0], config.patch[1], config.patch[2]}});
  specs.push_back({"patch_embedding.bias", {d}});
  add_linear(specs, "condition_embedder.time_embedder.linear_1", d, config.frequency_width);
  add_linear(specs, "condition_embedder.time_embedder.linear_2", d, d);
  add_linear(specs, "condition_embedder.time_proj", 6 * d, d);
  add_linear(specs, "condition_embedder.text_embedder.linear_1", d, config.text_width);
  add_linear(specs, "condition_embedder.text_embedder.linear_2", d, d);
  if (config.image_width > 0) add_image_embedder(specs, config);
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string block = fmt::format("blocks.{}.", i);
    specs.push_back({block + "scale_shift_table", {1, 6, d}});
    add_attention(specs, block + "attn1", d, /*has_image=*/false);
    add_attention(specs, block + "attn2", d, config.image_width > 0);
    if (config.has_cross_norm) add_norm(specs, block + "norm2", d);
    add_linear(specs, block + "ffn.net.0.proj", config.ffn_width, d);
    add_linear(specs, block + "ffn.net.2", d, config.ffn_width);
  }
  specs.push_back({"scale_shift_table", {1, 2, d}});
  add_linear(specs, "proj_out", patch_volume * config.out_channels, d);
  return specs;
}

weights::Rename wan_rename(const weights::TensorSource& source) {
  bool is_original = false;
  for (const weights::TensorInfo& info : source.tensors()) {
    const std::string_view name = strip_prefix(info.name);
    if (name.starts_with("blocks.0.self_attn.") || name.starts_with("time_embedding.")) is_original = true;
  }
  return [is_original](std::string_view name) -> std::optional<std::string> {
    name = strip_prefix(name);
    if (is_leftover(name)) return std::nullopt;
    return is_original ? wan_rename_original(name) : std::string(name);
  };
}

WanConfig WanConfig::from_tensors(const weights::TensorSource& source) {
  const weights::NamedShapes shapes(source, wan_rename(source), "a Wan transformer");
  const std::string embedder = "condition_embedder.";
  WanConfig config;
  const std::vector<int64_t>& patch = shapes.at("patch_embedding.weight", 5);
  config.head_width = 128;
  config.heads = std::max<int64_t>(1, patch[0] / config.head_width);
  config.in_channels = patch[1];
  config.patch = {patch[2], patch[3], patch[4]};
  config.layers = shapes.count_blocks("blocks.");
  config.ffn_width = shapes.at("blocks.0.ffn.net.0.proj.weight", 2)[0];
  config.text_width = shapes.at(embedder + "text_embedder.linear_1.weight", 2)[1];
  config.frequency_width = shapes.at(embedder + "time_embedder.linear_1.weight", 2)[1];
  config.out_channels = shapes.at("proj_out.weight", 2)[0] / (patch[2] * patch[3] * patch[4]);
  config.has_cross_norm = shapes.contains("blocks.0.norm2.weight");
  if (const std::string norm = embedder + "image_embedder.norm1.weight"; shapes.contains(norm)) {
    config.image_width = shapes.at(norm, 1)[0];
  }
  if (const std::string positions = embedder + "image_embedder.pos_embed"; shapes.contains(positions)) {
    config.image_positions = shapes.at(positions, 3)[1];
  }
  return config;
}

}  // namespace strobe::models
