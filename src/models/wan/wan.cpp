#include "models/wan/wan.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/layers.h"
#include "models/rope.h"

namespace strobe::models {
namespace {

struct AttentionWeights {
  Linear to_q, to_k, to_v, to_out;
  at::Tensor norm_q, norm_k;
  Linear add_k, add_v;  // image keys and values
  at::Tensor norm_added_k;
};

struct BlockWeights {
  at::Tensor modulation;  // [1, 6, C] float32: shift, scale, gate of self attention, then of the feed-forward
  AttentionWeights attn1, attn2;
  at::Tensor norm2_weight, norm2_bias;
  Linear ffn_in, ffn_out;
};

// Keys and values of one or more prompts in one layer, [b, n, C].
struct ContextKeys {
  at::Tensor k, v;              // text, then one row for all padding
  at::Tensor image_k, image_v;  // undefined without an image branch
};

class WanConditioning final : public PreparedConditioning {
 public:
  at::Tensor text;      // [b, n (+ 1 if padded), C] after the text embedder
  at::Tensor image;     // [b, m, C] after the image embedder, or undefined
  at::Tensor key_bias;  // [b, n + 1] float32: 0, ..., 0, ln(padding rows), -inf behind; undefined: all 0
  std::vector<int64_t> valid_text;
  std::vector<ContextKeys> layers;  // filled as layers first run
};

AttentionWeights load_attention(const weights::WeightStore& store, const std::string& name, at::ScalarType dtype,
                                at::Device device) {
  AttentionWeights w;
  w.to_q = load_linear(store, name + ".to_q", dtype, device);
  w.to_k = load_linear(store, name + ".to_k", dtype, device);
  w.to_v = load_linear(store, name + ".to_v", dtype, device);
  w.to_out = load_linear(store, name + ".to_out.0", dtype, device);
  w.norm_q = store.load(name + ".norm_q.weight", dtype, device);
  w.norm_k = store.load(name + ".norm_k.weight", dtype, device);
  if (store.contains(name + ".add_k_proj.weight")) {
    w.add_k = load_linear(store, name + ".add_k_proj", dtype, device);
    w.add_v = load_linear(store, name + ".add_v_proj", dtype, device);
    w.norm_added_k = store.load(name + ".norm_added_k.weight", dtype, device);
  }
  return w;
}

BlockWeights load_block(const weights::WeightStore& store, const std::string& name, const WanConfig& config,
                        at::ScalarType dtype, at::Device device) {
  BlockWeights w;
  w.modulation = store.load(name + "scale_shift_table", at::kFloat, device);
  w.attn1 = load_attention(store, name + "attn1", dtype, device);
  w.attn2 = load_attention(store, name + "attn2", dtype, device);
  if (config.has_cross_norm) {
    w.norm2_weight = store.load(name + "norm2.weight", at::kFloat, device);
    w.norm2_bias = store.load(name + "norm2.bias", at::kFloat, device);
  }
  w.ffn_in = load_linear(store, name + "ffn.net.0.proj", dtype, device);
  w.ffn_out = load_linear(store, name + "ffn.net.2", dtype, device);
  return w;
}

// Stacks [b_i, n_i, C] of unequal length to [B, max n, C], zeros behind.
at::Tensor stack_padded(const std::vector<at::Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  int64_t rows = 0, longest = 0;
  for (const at::Tensor& part : parts) {
    rows += part.size(0);
    longest = std::max(longest, part.size(1));
  }
  at::Tensor out = at::zeros({rows, longest, parts[0].size(2)}, parts[0].options());
  int64_t row = 0;
  for (const at::Tensor& part : parts) {
    out.narrow(0, row, part.size(0)).narrow(1, 0, part.size(1)).copy_(part);
    row += part.size(0);
  }
  return out;
}

// What one call of `predict` shares among its blocks.
struct Pass {
  ModelContext& context;
  std::vector<WanConditioning*> conditioning;
  attention::AttentionSite site;
  RopeTables rope;
  at::Tensor key_bias;  // [B, n] or undefined
  at::Tensor six;       // [B, 1 or N, 6, C] float32
};

class WanDiT final : public DiTModel {
 public:
  WanDiT(const WanConfig& config, const weights::WeightStore& store, at::ScalarType dtype, at::Device device,
         Residency residency);

  std::string name() const override { return "wan"; }
  int64_t in_channels() const override { return config_.in_channels; }
  int64_t out_channels() const override { return config_.out_channels; }
  int64_t layers() const override { return config_.layers; }
  TokenGrid grid(int64_t frames, int64_t height, int64_t width) const override;
  using DiTModel::prepare;
  std::shared_ptr<PreparedConditioning> prepare(const std::vector<Conditioning>& prompts) const override;
  at::Tensor predict(const DiTInput& input, ModelContext& context) const override;

 private:
  at::Tensor embed_patches(const at::Tensor& latents) const;
  at::Tensor embed_text(const std::vector<Conditioning>& prompts, WanConditioning& prepared) const;
  at::Tensor embed_image(const at::Tensor& tokens) const;
  at::Tensor stack_conditioning(const DiTInput& input, Pass& pass) const;
  at::Tensor embed_time(const at::Tensor& timesteps, ModelContext& context, at::Tensor& six) const;
  at::Tensor run_layer(int64_t layer, at::Tensor x, Pass& pass) const;
  at::Tensor run_block(const BlockWeights& w, int64_t layer, at::Tensor x, Pass& pass) const;
  at::Tensor self_attention(const AttentionWeights& w, const at::Tensor& x, Pass& pass) const;
  at::Tensor cross_attention(const AttentionWeights& w, int64_t layer, const at::Tensor& x, Pass& pass) const;
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& key_bias,
                    attention::AttentionKind kind, Pass& pass) const;
  const ContextKeys& context_keys(const AttentionWeights& w, int64_t layer, WanConditioning& c) const;
  at::Tensor head(const at::Tensor& x, const at::Tensor& temb, const TokenGrid& grid, ModelContext& context) const;
  at::Tensor unpatchify(const at::Tensor& tokens, const TokenGrid& grid) const;

  WanConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  Linear patch_, time_1_, time_2_, time_proj_, text_1_, text_2_, image_1_, image_2_, proj_out_;
  at::Tensor image_norm1_weight_, image_norm1_bias_, image_norm2_weight_, image_norm2_bias_, image_positions_;
  at::Tensor head_modulation_;        // [1, 2, C] float32
  std::vector<BlockWeights> blocks_;  // empty when streamed
  weights::WeightStore store_;        // for streamed blocks only
};

std::string block_prefix(int64_t layer) { return fmt::format("blocks.{}.", layer); }

void probe(ModelContext& context, const std::string& name, const at::Tensor& tensor) {
  if (context.probe) context.probe(name, tensor);
}

WanDiT::WanDiT(const WanConfig& config, const weights::WeightStore& store, at::ScalarType dtype, at::Device device,
               Residency residency)
    : config_(config), dtype_(dtype), device_(device) {
  // A convolution whose stride is its kernel is a linear layer over flattened patches.
  patch_.weight = store.load("patch_embedding.weight", dtype, device).flatten(1);
  patch_.bias = store.load("patch_embedding.bias", dtype, device);
  const std::string embedder = "condition_embedder.";
  time_1_ = load_linear(store, embedder + "time_embedder.linear_1", at::kFloat, device);
  time_2_ = load_linear(store, embedder + "time_embedder.linear_2", at::kFloat, device);
  time_proj_ = load_linear(store, embedder + "time_proj", dtype, device);
  text_1_ = load_linear(store, embedder + "text_embedder.linear_1", dtype, device);
  text_2_ = load_linear(store, embedder + "text_embedder.linear_2", dtype, device);
  if (config.image_width > 0) {
    const std::string image = embedder + "image_embedder.";
    image_norm1_weight_ = store.load(image + "norm1.weight", at::kFloat, device);
    image_norm1_bias_ = store.load(image + "norm1.bias", at::kFloat, device);
    image_norm2_weight_ = store.load(image + "norm2.weight", at::kFloat, device);
    image_norm2_bias_ = store.load(image + "norm2.bias", at::kFloat, device);
    image_1_ = load_linear(store, image + "ff.net.0.proj", dtype, device);
    image_2_ = load_linear(store, image + "ff.net.2", dtype, device);
    if (config.image_positions > 0) image_positions_ = store.load(image + "pos_embed", at::kFloat, device);
  }
  if (residency == Residency::kStreamed) {
    store_ = store;
  } else {
    for (int64_t i = 0; i < config.layers; ++i) {
      blocks_.push_back(load_block(store, block_prefix(i), config, dtype, device));
    }
  }
  head_modulation_ = store.load("scale_shift_table", at::kFloat, device);
  proj_out_ = load_linear(store, "proj_out", dtype, device);
}

TokenGrid WanDiT::grid(int64_t frames, int64_t height, int64_t width) const {
  const auto& p = config_.patch;
  STROBE_CHECK(frames % p[0] == 0 && height % p[1] == 0 && width % p[2] == 0 && frames * height * width > 0,
               "wan: latents {} x {} x {} are not a multiple of the patch {} x {} x {}", frames, height, width, p[0],
               p[1], p[2]);
  return {.frames = frames / p[0], .rows = height / p[1], .cols = width / p[2]};
}

at::Tensor WanDiT::embed_image(const at::Tensor& tokens) const {
  at::Tensor x = tokens.to(device_, at::kFloat);
  if (x.dim() == 2) x = x.unsqueeze(0);
  if (image_positions_.defined()) {
    STROBE_CHECK(x.numel() == image_positions_.numel(), "wan: image tokens: expected {} x {} values, got {}",
                 config_.image_positions, config_.image_width, x.numel());
    x = x.reshape({1, config_.image_positions, config_.image_width}) + image_positions_;
  }
  STROBE_CHECK(x.size(2) == config_.image_width, "wan: image tokens: expected width {}, got {}", config_.image_width,
               x.size(2));
  // The image embedder's norms have their own eps, and its GELU is the exact one.
  x = at::layer_norm(x, {config_.image_width}, image_norm1_weight_, image_norm1_bias_, 1e-5).to(dtype_);
  x = image_2_(at::gelu(image_1_(x), "none"));
  return at::layer_norm(x.to(at::kFloat), {config_.width()}, image_norm2_weight_, image_norm2_bias_, 1e-5).to(dtype_);
}

// Fills valid_text and key_bias. All rows pass the text layers together; the rows of padding are equal, so one stands
// for them.
at::Tensor WanDiT::embed_text(const std::vector<Conditioning>& prompts, WanConditioning& prepared) const {
  std::vector<at::Tensor> rows;
  std::vector<int64_t> keys;
  bool has_padding = false;
  for (const Conditioning& prompt : prompts) {
    const at::Tensor& states = prompt.text.states;
    STROBE_CHECK(states.dim() == 2 && states.size(1) == config_.text_width, "wan: text: expected [n, {}], got {} axes",
                 config_.text_width, states.dim());
    const int64_t valid = states.size(0), padding = prompt.text.padded_tokens - valid;
    STROBE_CHECK(padding >= 0, "wan: text: {} tokens do not fit {} padded ones", valid, prompt.text.padded_tokens);
    rows.push_back(states.to(device_, dtype_));
    if (padding > 0) rows.push_back(at::zeros({1, config_.text_width}, rows.back().options()));
    keys.push_back(valid + (padding > 0 ? 1 : 0));
    prepared.valid_text.push_back(valid);
    has_padding = has_padding || padding > 0;
  }
  at::Tensor text = text_2_(at::gelu(text_1_(at::cat(rows)), "tanh"));
  const auto count = static_cast<int64_t>(prompts.size());
  const int64_t longest = *std::max_element(keys.begin(), keys.end());
  if (has_padding || count > 1) {
    prepared.key_bias = at::full({count, longest}, -std::numeric_limits<float>::infinity(), at::kFloat);
    for (int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<size_t>(i);
      const int64_t valid = prepared.valid_text[row];
      at::Tensor bias = prepared.key_bias[i];
      bias.narrow(0, 0, valid).zero_();
      if (keys[row] > valid) {
        bias[valid] = std::log(static_cast<double>(prompts[row].text.padded_tokens - valid));
      }
    }
    prepared.key_bias = prepared.key_bias.to(device_);
  }
  if (count == 1) return text.unsqueeze(0);
  std::vector<at::Tensor> parts = text.split_with_sizes(keys);
  for (at::Tensor& part : parts) part = at::constant_pad_nd(part, {0, 0, 0, longest - part.size(0)});
  return at::stack(parts);
}

std::shared_ptr<PreparedConditioning> WanDiT::prepare(const std::vector<Conditioning>& prompts) const {
  STROBE_CHECK(!prompts.empty(), "wan: no prompt to prepare");
  auto prepared = std::make_shared<WanConditioning>();
  prepared->text = embed_text(prompts, *prepared);
  if (config_.image_width > 0) {
    std::vector<at::Tensor> images;
    for (const Conditioning& prompt : prompts) {
      STROBE_CHECK(prompt.image_tokens.defined(), "wan: this model needs image tokens (image_dim {})",
                   config_.image_width);
      images.push_back(embed_image(prompt.image_tokens));
    }
    prepared->image = at::cat(images);
  }
  prepared->layers.resize(static_cast<size_t>(config_.layers));
  return prepared;
}

at::Tensor WanDiT::embed_patches(const at::Tensor& latents) const {
  const auto& [pf, ph, pw] = config_.patch;
  const int64_t b = latents.size(0), c = latents.size(1);
  const int64_t f = latents.size(2) / pf, r = latents.size(3) / ph, w = latents.size(4) / pw;
  at::Tensor patches = latents.to(device_, dtype_)
                           .reshape({b, c, f, pf, r, ph, w, pw})
                           .permute({0, 2, 4, 6, 1, 3, 5, 7})
                           .reshape({b, f * r * w, c * pf * ph * pw});
  return patch_(patches);
}

// Returns temb [B, 1 or N, C] in the model's dtype, and the six vectors [B, 1 or N, 6, C] float32 in `six`.
at::Tensor WanDiT::embed_time(const at::Tensor& timesteps, ModelContext& context, at::Tensor& six) const {
  at::Tensor t = timesteps.to(device_);
  if (t.dim() == 1) t = t.unsqueeze(1);
  at::Tensor sinusoid = timestep_sinusoid(t, config_.frequency_width);
  probe(context, "time_sinusoid", sinusoid);
  at::Tensor temb = time_2_(at::silu(time_1_(sinusoid))).to(dtype_);
  probe(context, "temb", temb);
  at::Tensor projected = time_proj_(at::silu(temb));
  probe(context, "time_proj", projected);
  six = projected.to(at::kFloat).view({t.size(0), t.size(1), 6, config_.width()});
  return temb;
}

// Fills conditioning and valid_text; returns the bias of the text keys [B, n], undefined where all are 0.
at::Tensor WanDiT::stack_conditioning(const DiTInput& input, Pass& pass) const {
  int64_t longest = 0;
  bool has_bias = input.conditioning.size() > 1;
  for (const auto& entry : input.conditioning) {
    auto* prepared = dynamic_cast<WanConditioning*>(entry.get());
    STROBE_CHECK(prepared && static_cast<int64_t>(prepared->layers.size()) == config_.layers,
                 "wan: a prompt was not prepared by this model");
    pass.conditioning.push_back(prepared);
    pass.site.valid_text.insert(pass.site.valid_text.end(), prepared->valid_text.begin(), prepared->valid_text.end());
    longest = std::max(longest, prepared->text.size(1));
    has_bias = has_bias || prepared->key_bias.defined();
  }
  const int64_t batch = input.latents.size(0);
  STROBE_CHECK(static_cast<int64_t>(pass.site.valid_text.size()) == batch, "wan: {} batch rows with {} prompts", batch,
               pass.site.valid_text.size());
  if (!has_bias) return {};
  if (pass.conditioning.size() == 1) return pass.conditioning[0]->key_bias;
  at::Tensor bias = at::full({batch, longest}, -std::numeric_limits<float>::infinity(),
                             at::TensorOptions().dtype(at::kFloat).device(device_));
  int64_t first = 0;
  for (const WanConditioning* prepared : pass.conditioning) {
    at::Tensor rows = bias.narrow(0, first, prepared->text.size(0)).narrow(1, 0, prepared->text.size(1));
    if (prepared->key_bias.defined()) {
      rows.copy_(prepared->key_bias);
    } else {
      rows.zero_();
    }
    first += prepared->text.size(0);
  }
  return bias;
}

at::Tensor WanDiT::predict(const DiTInput& input, ModelContext& context) const {
  const at::Tensor& latents = input.latents;
  STROBE_CHECK(latents.dim() == 5 && latents.size(1) == config_.in_channels,
               "wan: latents: expected [B, {}, F, H, W], got {} axes with {} channels", config_.in_channels,
               latents.dim(), latents.dim() > 1 ? latents.size(1) : 0);
  STROBE_CHECK(static_cast<int64_t>(context.branches.size()) == latents.size(0), "wan: {} batch rows with {} branches",
               latents.size(0), context.branches.size());
  Pass pass{.context = context};
  const TokenGrid tokens = grid(latents.size(2), latents.size(3), latents.size(4));
  STROBE_CHECK(input.timesteps.size(0) == latents.size(0) &&
                   (input.timesteps.dim() == 1 || input.timesteps.size(1) == tokens.video_tokens()),
               "wan: timesteps: expected [B] or [B, {}]", tokens.video_tokens());
  pass.site = {.kind = attention::AttentionKind::kSelf,
               .stage = context.stage,
               .layers = static_cast<int>(config_.layers),
               .branches = context.branches,
               .sample = context.sample,
               .seed = context.seed,
               .step = context.step,
               .steps = context.steps,
               .evaluation = context.evaluation,
               .sigma = context.sigma,
               .grid = tokens};
  pass.key_bias = stack_conditioning(input, pass);
  pass.rope = make_rope_3d(tokens, config_.head_width, config_.rope_positions, device_);
  probe(context, "text_embedder", pass.conditioning[0]->text);
  at::Tensor temb = embed_time(input.timesteps, context, pass.six);
  at::Tensor x = embed_patches(latents);
  probe(context, "patch_embedding", x);

  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const caching::BlockSite site{.layer = static_cast<int>(layer),
                                  .layers = static_cast<int>(config_.layers),
                                  .stage = context.stage,
                                  .step = context.step,
                                  .steps = context.steps,
                                  .branch = static_cast<int>(context.branches[0])};
    x = context.blocks.run(site, std::move(x),
                           [&](at::Tensor hidden) { return run_layer(layer, std::move(hidden), pass); });
    if (context.probe) probe(context, fmt::format("block{}.out", layer), x);
  }
  return head(x, temb, tokens, context);
}

at::Tensor WanDiT::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& key_bias,
                          attention::AttentionKind kind, Pass& pass) const {
  const auto split = [&](const at::Tensor& x) {
    return x.view({x.size(0), x.size(1), config_.heads, config_.head_width}).transpose(1, 2);
  };
  attention::AttentionSite site = pass.site;
  site.kind = kind;
  at::Tensor out = pass.context.attention(site, {.q = split(q), .k = split(k), .v = split(v), .key_bias = key_bias});
  return out.transpose(1, 2).reshape({q.size(0), q.size(1), config_.width()});
}

at::Tensor WanDiT::self_attention(const AttentionWeights& w, const at::Tensor& x, Pass& pass) const {
  const std::string name = fmt::format("block{}.attn1", pass.site.layer);
  at::Tensor q = w.to_q(x), k = w.to_k(x), v = w.to_v(x);
  if (pass.context.probe) {
    probe(pass.context, name + ".norm_q", rms_norm(q, w.norm_q, config_.eps));
    probe(pass.context, name + ".norm_k", rms_norm(k, w.norm_k, config_.eps));
    probe(pass.context, name + ".to_v", v);
  }
  q = rms_norm_rope(q, w.norm_q, config_.eps, config_.heads, pass.rope.cosine, pass.rope.sine);
  k = rms_norm_rope(k, w.norm_k, config_.eps, config_.heads, pass.rope.cosine, pass.rope.sine);
  if (pass.context.probe) {
    probe(pass.context, name + ".q_rope", q);
    probe(pass.context, name + ".k_rope", k);
  }
  return w.to_out(attend(q, k, v, {}, attention::AttentionKind::kSelf, pass));
}

const ContextKeys& WanDiT::context_keys(const AttentionWeights& w, int64_t layer, WanConditioning& c) const {
  ContextKeys& keys = c.layers[static_cast<size_t>(layer)];
  if (!keys.k.defined()) {
    keys.k = rms_norm(w.to_k(c.text), w.norm_k, config_.eps);
    keys.v = w.to_v(c.text);
    if (c.image.defined()) {
      keys.image_k = rms_norm(w.add_k(c.image), w.norm_added_k, config_.eps);
      keys.image_v = w.add_v(c.image);
    }
  }
  return keys;
}

at::Tensor WanDiT::cross_attention(const AttentionWeights& w, int64_t layer, const at::Tensor& x, Pass& pass) const {
  std::vector<at::Tensor> k, v, image_k, image_v;
  for (WanConditioning* c : pass.conditioning) {
    const ContextKeys& keys = context_keys(w, layer, *c);
    k.push_back(keys.k);
    v.push_back(keys.v);
    image_k.push_back(keys.image_k);
    image_v.push_back(keys.image_v);
  }
  at::Tensor q = rms_norm_rope(w.to_q(x), w.norm_q, config_.eps, config_.heads, {}, {});
  if (pass.context.probe) {
    probe(pass.context, fmt::format("block{}.attn2.norm_q", layer), q);
    probe(pass.context, fmt::format("block{}.attn2.norm_k", layer), k[0]);
  }
  at::Tensor out = attend(q, stack_padded(k), stack_padded(v), pass.key_bias, attention::AttentionKind::kCross, pass);
  if (image_k[0].defined()) {
    out = out + attend(q, at::cat(image_k), at::cat(image_v), {}, attention::AttentionKind::kCross, pass);
  }
  return w.to_out(out);
}

at::Tensor WanDiT::run_layer(int64_t layer, at::Tensor x, Pass& pass) const {
  if (!blocks_.empty()) return run_block(blocks_[static_cast<size_t>(layer)], layer, std::move(x), pass);
  // The next block's pages are read from the disk while this one computes.
  store_.prefetch(block_prefix((layer + 1) % config_.layers));
  {
    const BlockWeights weights = load_block(store_, block_prefix(layer), config_, dtype_, device_);
    x = run_block(weights, layer, std::move(x), pass);
  }
  store_.release(block_prefix(layer));
  return x;
}

at::Tensor WanDiT::run_block(const BlockWeights& w, int64_t layer, at::Tensor x, Pass& pass) const {
  pass.site.layer = static_cast<int>(layer);
  ModelContext& context = pass.context;
  const std::string name = context.probe ? fmt::format("block{}", layer) : std::string();
  at::Tensor m = pass.six + w.modulation.unsqueeze(1);  // [B, 1 or N, 6, C]
  const auto part = [&](int64_t i) { return m.select(2, i); };

  at::Tensor n = modulated_layer_norm(x, part(1), part(0), config_.eps, dtype_);
  probe(context, name + ".attn1.input", n);
  at::Tensor a = self_attention(w.attn1, n, pass);
  probe(context, name + ".attn1", a);
  x = add_gated(x, a, part(2), dtype_);

  n = config_.has_cross_norm
          ? at::layer_norm(x.to(at::kFloat), {config_.width()}, w.norm2_weight, w.norm2_bias, config_.eps).to(dtype_)
          : x;
  probe(context, name + ".norm2", n);
  a = cross_attention(w.attn2, layer, n, pass);
  probe(context, name + ".attn2", a);
  x = is_recorded(a) ? x + a : x.add_(a);

  n = modulated_layer_norm(x, part(4), part(3), config_.eps, dtype_);
  probe(context, name + ".ffn.input", n);
  at::Tensor hidden = w.ffn_in(n);
  a = w.ffn_out(is_recorded(hidden) ? at::gelu(hidden, "tanh") : at::gelu_(hidden, "tanh"));
  probe(context, name + ".ffn", a);
  return add_gated(x, a, part(5), dtype_);
}

at::Tensor WanDiT::head(const at::Tensor& x, const at::Tensor& temb, const TokenGrid& grid,
                        ModelContext& context) const {
  at::Tensor m = head_modulation_.unsqueeze(1) + temb.to(at::kFloat).unsqueeze(2);  // [B, 1 or N, 2, C]
  at::Tensor y = proj_out_(modulated_layer_norm(x, m.select(2, 1), m.select(2, 0), config_.eps, dtype_));
  probe(context, "proj_out", y);
  at::Tensor output = unpatchify(y, grid);
  probe(context, "output", output);
  return output;
}

// The last axis of the tokens is (frame, row, column in the patch, channel), channel fastest: unlike the patch
// embedding.
at::Tensor WanDiT::unpatchify(const at::Tensor& tokens, const TokenGrid& grid) const {
  const auto& [pf, ph, pw] = config_.patch;
  const int64_t b = tokens.size(0), c = config_.out_channels;
  return tokens.reshape({b, grid.frames, grid.rows, grid.cols, pf, ph, pw, c})
      .permute({0, 7, 1, 4, 2, 5, 3, 6})
      .reshape({b, c, grid.frames * pf, grid.rows * ph, grid.cols * pw})
      .to(at::kFloat);
}

}  // namespace

std::unique_ptr<DiTModel> make_wan_dit(const WanConfig& config, const weights::WeightStore& store, at::ScalarType dtype,
                                       at::Device device, Residency residency) {
  return std::make_unique<WanDiT>(config, store, dtype, device, residency);
}

}  // namespace strobe::models
