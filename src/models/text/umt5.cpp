#include "core/torch.h"

#include "models/text/umt5.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "weights/named_shapes.h"

namespace strobe::models {
namespace {

// Larger than any published encoder by far; keeps products of two sizes inside int64.
constexpr int64_t kMaxSize = int64_t{1} << 24;

int64_t positive_integer(const ConfigNode& node, std::string_view key) {
  const ConfigNode& child = node.at(key);
  const int64_t value = child.as_integer();
  if (value < 1 || value > kMaxSize) child.fail(fmt::format("expected an integer in [1, {}], got {}", kMaxSize, value));
  return value;
}

std::string block_name(int64_t block, const char* rest) { return fmt::format("encoder.block.{}.{}", block, rest); }

// Rest of an original name behind "blocks.<i>.", or nullopt.
std::optional<std::string> rename_original(std::string_view name) {
  static constexpr std::pair<std::string_view, std::string_view> kRests[] = {
      {"norm1.weight", "layer.0.layer_norm.weight"},
      {"attn.q.weight", "layer.0.SelfAttention.q.weight"},
      {"attn.k.weight", "layer.0.SelfAttention.k.weight"},
      {"attn.v.weight", "layer.0.SelfAttention.v.weight"},
      {"attn.o.weight", "layer.0.SelfAttention.o.weight"},
      {"pos_embedding.embedding.weight", "layer.0.SelfAttention.relative_attention_bias.weight"},
      {"norm2.weight", "layer.1.layer_norm.weight"},
      {"ffn.gate.0.weight", "layer.1.DenseReluDense.wi_0.weight"},
      {"ffn.fc1.weight", "layer.1.DenseReluDense.wi_1.weight"},
      {"ffn.fc2.weight", "layer.1.DenseReluDense.wo.weight"},
  };
  if (name == "token_embedding.weight") return "shared.weight";
  if (name == "norm.weight") return "encoder.final_layer_norm.weight";
  if (!name.starts_with("blocks.")) return std::nullopt;
  name.remove_prefix(7);
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  for (const auto& [from, to] : kRests) {
    if (name.substr(dot + 1) == from) return fmt::format("encoder.block.{}.{}", name.substr(0, dot), to);
  }
  return std::nullopt;
}

class Umt5 final : public TextEncoder {
 public:
  Umt5(const Umt5Config& config, weights::WeightStore store, at::ScalarType dtype, at::Device device, TextProbe probe)
      : config_(config), store_(std::move(store)), dtype_(dtype), device_(device), probe_(std::move(probe)) {}

  using TextEncoder::encode;
  at::Tensor encode(const std::vector<int32_t>& ids, const std::function<void()>& before_block) const override;
  at::Tensor encode_together(const std::vector<std::vector<int32_t>>& prompts) const override;
  int64_t width() const override { return config_.d_model; }

 private:
  // What the blocks share in one pass.
  struct Positions {
    at::Tensor buckets;  // [n, n] int64, row = query, column = key
    at::Tensor mask;     // [n, n] float32, -inf between prompts; undefined for a single one
  };

  at::Tensor load(const std::string& name) const { return store_.load(name, dtype_, device_); }
  at::Tensor run(const std::vector<int32_t>& ids, const Positions& positions,
                 const std::function<void()>& before_block) const;
  at::Tensor embed(const std::vector<int32_t>& ids) const;
  at::Tensor norm(const at::Tensor& x, const std::string& name) const;
  at::Tensor buckets(int64_t tokens) const;
  at::Tensor self_attention(int64_t block, const at::Tensor& y, const Positions& positions) const;
  at::Tensor feed_forward(int64_t block, const at::Tensor& y) const;
  void show(const std::string& name, const at::Tensor& value) const {
    if (probe_) probe_(name, value);
  }

  Umt5Config config_;
  weights::WeightStore store_;
  at::ScalarType dtype_;
  at::Device device_;
  TextProbe probe_;
};

at::Tensor Umt5::embed(const std::vector<int32_t>& ids) const {
  const at::Tensor index = at::empty({static_cast<int64_t>(ids.size())}, at::kLong);
  auto* out = index.data_ptr<int64_t>();
  for (size_t i = 0; i < ids.size(); ++i) {
    STROBE_CHECK(ids[i] >= 0 && ids[i] < config_.vocab_size,
                 "text encoder: ids[{}]: expected a value in [0, {}), got {} (do tokenizer and text encoder belong "
                 "together?)",
                 i, config_.vocab_size, ids[i]);
    out[i] = ids[i];
  }
  return store_.load_stored("shared.weight").index_select(0, index).to(device_, dtype_);
}

at::Tensor Umt5::norm(const at::Tensor& x, const std::string& name) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + config_.layer_norm_eps);
  return load(name) * (wide * scale).to(dtype_);
}

// [n, n] int64, row = query, column = key.
at::Tensor Umt5::buckets(int64_t tokens) const {
  STROBE_CHECK(tokens > 0, "text encoder: ids: expected at least the end token, got none");
  const at::Tensor by_offset = at::empty({2 * tokens - 1}, at::kLong);
  auto* out = by_offset.data_ptr<int64_t>();
  for (int64_t offset = 1 - tokens; offset < tokens; ++offset)
    out[offset + tokens - 1] = relative_bucket(offset, config_.num_buckets, config_.max_distance);
  const at::Tensor position = at::arange(tokens, at::kLong);
  const at::Tensor offset = position.unsqueeze(0) - position.unsqueeze(1) + (tokens - 1);
  return by_offset.index_select(0, offset.flatten()).view({tokens, tokens}).to(device_);
}

at::Tensor Umt5::self_attention(int64_t block, const at::Tensor& y, const Positions& positions) const {
  const int64_t tokens = y.size(0);
  const auto heads = [&](const char* which) {
    const at::Tensor weight = load(block_name(block, "layer.0.SelfAttention.") + which + ".weight");
    return at::linear(y, weight).view({tokens, config_.num_heads, config_.d_kv}).transpose(0, 1);
  };
  const at::Tensor query = heads("q");
  const at::Tensor key = heads("k");
  const int64_t bias_block = config_.bias_in_every_block ? block : 0;
  const at::Tensor table = load(block_name(bias_block, "layer.0.SelfAttention.relative_attention_bias.weight"));
  const at::Tensor bias = table.index_select(0, positions.buckets.flatten()).view({tokens, tokens, config_.num_heads});
  at::Tensor scores = at::matmul(query, key.transpose(1, 2)).add_(bias.permute({2, 0, 1}));
  if (positions.mask.defined()) scores = scores + positions.mask;
  const at::Tensor share = at::softmax(scores.to(at::kFloat), -1).to(dtype_);
  const at::Tensor mixed = at::matmul(share, heads("v")).transpose(0, 1).reshape({tokens, -1});
  return at::linear(mixed, load(block_name(block, "layer.0.SelfAttention.o.weight")));
}

at::Tensor Umt5::feed_forward(int64_t block, const at::Tensor& y) const {
  const at::Tensor gate =
      at::gelu(at::linear(y, load(block_name(block, "layer.1.DenseReluDense.wi_0.weight"))), "tanh");
  const at::Tensor inner = gate * at::linear(y, load(block_name(block, "layer.1.DenseReluDense.wi_1.weight")));
  const at::ScalarType wide = dtype_ == at::kHalf ? at::kFloat : dtype_;
  return at::linear(inner.to(wide), store_.load(block_name(block, "layer.1.DenseReluDense.wo.weight"), wide, device_));
}

at::Tensor Umt5::encode(const std::vector<int32_t>& ids, const std::function<void()>& before_block) const {
  const at::NoGradGuard no_grad;
  return run(ids, {.buckets = buckets(static_cast<int64_t>(ids.size())), .mask = {}}, before_block);
}

// Distances inside a prompt are what they are in it alone; between prompts nothing is seen.
at::Tensor Umt5::encode_together(const std::vector<std::vector<int32_t>>& prompts) const {
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& prompt : prompts) ids.insert(ids.end(), prompt.begin(), prompt.end());
  const auto tokens = static_cast<int64_t>(ids.size());
  at::Tensor mask = at::full({tokens, tokens}, -std::numeric_limits<float>::infinity(), at::kFloat);
  int64_t first = 0;
  for (const std::vector<int32_t>& prompt : prompts) {
    const auto count = static_cast<int64_t>(prompt.size());
    mask.narrow(0, first, count).narrow(1, first, count).zero_();
    first += count;
  }
  return run(ids, {.buckets = buckets(tokens), .mask = mask.to(device_)}, {});
}

at::Tensor Umt5::run(const std::vector<int32_t>& ids, const Positions& positions,
                     const std::function<void()>& before_block) const {
  at::Tensor x = embed(ids);
  show("text.embed", x);
  const auto clamp_half = [](const at::Tensor& value) {
    constexpr double kHalfMax = 65504;
    return value.scalar_type() == at::kHalf ? value.clamp(-kHalfMax, kHalfMax) : value;
  };
  store_.release("shared.weight");
  for (int64_t block = 0; block < config_.num_layers; ++block) {
    if (before_block) before_block();
    store_.prefetch(block_name(block + 1, ""));
    const at::Tensor y = norm(x, block_name(block, "layer.0.layer_norm.weight"));
    x = clamp_half(x + self_attention(block, y, positions));
    x = x + feed_forward(block, norm(x, block_name(block, "layer.1.layer_norm.weight")));
    show(fmt::format("text.block{}.out", block), x);
    // The first block's bias may serve all.
    if (block > 0 || config_.bias_in_every_block) store_.release(block_name(block, ""));
  }
  return norm(x, "encoder.final_layer_norm.weight").to(at::kFloat);
}

}  // namespace

Umt5Config Umt5Config::from_json(const ConfigNode& node) {
  Umt5Config config;
  const std::string type = node.get_string("model_type", "umt5");
  if (type != "umt5" && type != "t5")
    node.at("model_type").fail(fmt::format("expected \"umt5\" or \"t5\", got \"{}\"", type));
  config.bias_in_every_block = type == "umt5";
  config.vocab_size = positive_integer(node, "vocab_size");
  config.d_model = positive_integer(node, "d_model");
  config.d_kv = positive_integer(node, "d_kv");
  config.d_ff = positive_integer(node, "d_ff");
  config.num_heads = positive_integer(node, "num_heads");
  config.num_layers = positive_integer(node, "num_layers");
  config.num_buckets = node.get_integer("relative_attention_num_buckets", 32);
  config.max_distance = node.get_integer("relative_attention_max_distance", 128);
  if (config.num_buckets < 4 || config.num_buckets > kMaxSize || config.num_buckets % 2 != 0)
    node.at("relative_attention_num_buckets").fail("expected an even number of at least 4");
  if (config.max_distance <= config.num_buckets / 4 || config.max_distance > kMaxSize)
    node.fail(
        fmt::format("relative_attention_max_distance: expected more than a quarter of "
                    "relative_attention_num_buckets ({}), got {}",
                    config.num_buckets, config.max_distance));
  config.layer_norm_eps = node.get_number("layer_norm_epsilon", 1e-6);
  if (!(config.layer_norm_eps > 0)) node.at("layer_norm_epsilon").fail("expected a number above 0");
  if (const std::string& kind = node.at("feed_forward_proj").as_string(); kind != "gated-gelu")
    node.at("feed_forward_proj")
        .fail(fmt::format("only \"gated-gelu\" (UMT5, T5 v1.1) is supported, got \"{}\"", kind));
  if (const std::string kind = node.get_string("dense_act_fn", "gelu_new"); kind != "gelu_new")
    node.at("dense_act_fn").fail(fmt::format("only \"gelu_new\" is supported, got \"{}\"", kind));
  return config;
}

Umt5Config Umt5Config::from_tensors(const weights::TensorSource& source) {
  const weights::NamedShapes shapes(source, umt5_rename(source), "a UMT5 encoder");
  Umt5Config config;
  const std::vector<int64_t>& embedding = shapes.at("shared.weight", 2);
  config.vocab_size = embedding[0];
  config.d_model = embedding[1];
  const std::vector<int64_t>& bias =
      shapes.at(block_name(0, "layer.0.SelfAttention.relative_attention_bias.weight"), 2);
  config.num_buckets = bias[0];
  config.num_heads = std::max<int64_t>(bias[1], 1);
  config.d_kv = shapes.at(block_name(0, "layer.0.SelfAttention.q.weight"), 2)[0] / config.num_heads;
  config.d_ff = shapes.at(block_name(0, "layer.1.DenseReluDense.wo.weight"), 2)[1];
  config.num_layers = shapes.count_blocks("encoder.block.");
  return config;
}

std::vector<weights::TensorSpec> umt5_parameters(const Umt5Config& config) {
  const int64_t width = config.d_model;
  const int64_t inner = config.num_heads * config.d_kv;
  std::vector<weights::TensorSpec> specs = {{"shared.weight", {config.vocab_size, width}},
                                            {"encoder.final_layer_norm.weight", {width}}};
  for (int64_t block = 0; block < config.num_layers; ++block) {
    const auto add = [&](const char* rest, std::vector<int64_t> shape) {
      specs.push_back({block_name(block, rest), std::move(shape)});
    };
    add("layer.0.layer_norm.weight", {width});
    add("layer.0.SelfAttention.q.weight", {inner, width});
    add("layer.0.SelfAttention.k.weight", {inner, width});
    add("layer.0.SelfAttention.v.weight", {inner, width});
    add("layer.0.SelfAttention.o.weight", {width, inner});
    if (block == 0 || config.bias_in_every_block)
      add("layer.0.SelfAttention.relative_attention_bias.weight", {config.num_buckets, config.num_heads});
    add("layer.1.layer_norm.weight", {width});
    add("layer.1.DenseReluDense.wi_0.weight", {config.d_ff, width});
    add("layer.1.DenseReluDense.wi_1.weight", {config.d_ff, width});
    add("layer.1.DenseReluDense.wo.weight", {width, config.d_ff});
  }
  return specs;
}

weights::Rename umt5_rename(const weights::TensorSource& source) {
  const bool has_shared = std::any_of(source.tensors().begin(), source.tensors().end(),
                                      [](const weights::TensorInfo& info) { return info.name == "shared.weight"; });
  return [has_shared](std::string_view name) -> std::optional<std::string> {
    if (name.starts_with("decoder.") || name == "lm_head.weight" || name == "spiece_model") return std::nullopt;
    if (name == "encoder.embed_tokens.weight") {
      if (has_shared) return std::nullopt;
      return "shared.weight";
    }
    if (auto renamed = rename_original(name)) return renamed;
    return std::string(name);
  };
}

std::unique_ptr<TextEncoder> make_umt5(const Umt5Config& config, weights::WeightStore store, at::ScalarType dtype,
                                       at::Device device, TextProbe probe) {
  STROBE_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
               "text encoder: dtype: expected float32, bfloat16 or float16, got {}", c10::toString(dtype));
  for (const weights::TensorSpec& spec : umt5_parameters(config))
    STROBE_CHECK(store.contains(spec.name), "text encoder: the store has no {}", spec.name);
  return std::make_unique<Umt5>(config, std::move(store), dtype, device, std::move(probe));
}

TextWork compute_umt5_work(const Umt5Config& config, int64_t tokens, int64_t element_bytes) {
  const auto n = static_cast<double>(tokens), width = static_cast<double>(config.d_model);
  const auto inner = static_cast<double>(config.num_heads * config.d_kv), ff = static_cast<double>(config.d_ff);
  const double block = 8 * n * width * inner + 4 * n * n * inner + 6 * n * width * ff;
  TextWork work;
  work.flops = static_cast<double>(config.num_layers) * block;
  // Scores, bias and softmax in float32 of all heads, or the gated feed-forward; the residual and its norm beside them.
  const int64_t scores = 3 * config.num_heads * tokens * tokens * 4;
  const int64_t gated = 3 * tokens * config.d_ff * element_bytes;
  work.activation_bytes = std::max(scores, gated) + 3 * tokens * config.d_model * element_bytes;
  work.weight_bytes = config.d_model * std::max(config.d_ff, config.num_heads * config.d_kv) * element_bytes;
  return work;
}

int64_t relative_bucket(int64_t key_minus_query, int64_t num_buckets, int64_t max_distance) {
  const int64_t half = num_buckets / 2;
  const int64_t exact = half / 2;
  const int64_t first = key_minus_query > 0 ? half : 0;
  const int64_t distance = std::abs(key_minus_query);
  if (distance < exact) return first + distance;
  // The small addend keeps distances whose logarithm is a whole number of buckets (16 of 32 buckets, 128) in their own.
  const double position = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                          std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
  const auto bucket = static_cast<int64_t>(position * static_cast<double>(half - exact) + 1e-9);
  return first + std::min(half - 1, exact + bucket);
}

}  // namespace strobe::models
