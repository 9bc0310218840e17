#include "models/wan/wan_known.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/wan/wan_setup.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

struct KnownWan {
  std::string name;
  WanConfig transformer;
  WanVaeConfig vae;
  Umt5Config text_encoder;
  double boundary_ratio = 0;  // two experts
  bool has_token_timesteps = false;
  ModelDefaults defaults;
  at::ScalarType text_dtype = at::kFloat;  // everything else is published in float32

  int stages() const { return boundary_ratio > 0 ? 2 : 1; }
};

Umt5Config umt5_xxl() {
  Umt5Config config;
  config.vocab_size = 256384, config.d_model = 4096, config.d_kv = 64, config.d_ff = 10240;
  config.num_heads = 64, config.num_layers = 24;
  return config;
}

KnownWan wan_tiny() {
  KnownWan known{.name = "wan_tiny", .vae = WanVaeConfig::wan21()};
  WanConfig& dit = known.transformer;
  dit.heads = 2, dit.head_width = 64, dit.layers = 2, dit.ffn_width = 256, dit.text_width = 64;
  Umt5Config& text = known.text_encoder;
  text.vocab_size = 192, text.d_model = 64, text.d_kv = 16, text.d_ff = 128, text.num_heads = 4, text.num_layers = 2;
  known.vae.base_width = known.vae.decoder_base_width = 8;
  known.vae.num_res_blocks = 1;
  known.vae.latents_mean.assign(16, 0.0);
  known.vae.latents_std.assign(16, 1.0);
  known.defaults = {.num_frames = 17, .height = 128, .width = 128, .num_inference_steps = 20, .guidance_scale = 4.0};
  return known;
}

KnownWan wan_1_3b() { return {.name = "wan_1_3b", .vae = WanVaeConfig::wan21(), .text_encoder = umt5_xxl()}; }

KnownWan wan_14b() {
  KnownWan known{.name = "wan_14b", .vae = WanVaeConfig::wan21(), .text_encoder = umt5_xxl()};
  known.transformer.heads = 40, known.transformer.layers = 40, known.transformer.ffn_width = 13824;
  known.defaults.height = 720, known.defaults.width = 1280;
  return known;
}

KnownWan wan22_a14b() {
  KnownWan known = wan_14b();
  known.name = "wan22_a14b";
  known.boundary_ratio = 0.875;
  known.text_dtype = at::kBFloat16;
  known.defaults.num_inference_steps = 40, known.defaults.guidance_scale = 4.0;
  return known;
}

KnownWan wan22_ti2v_5b() {
  KnownWan known{.name = "wan22_ti2v_5b", .vae = WanVaeConfig::wan22(), .text_encoder = umt5_xxl()};
  WanConfig& dit = known.transformer;
  dit.heads = 24, dit.layers = 30, dit.ffn_width = 14336, dit.in_channels = dit.out_channels = 48;
  known.has_token_timesteps = true;
  known.text_dtype = at::kBFloat16;
  known.defaults = {.num_frames = 121, .height = 704, .width = 1280, .fps = 24, .flow_shift = 5.0};
  return known;
}

const std::vector<KnownWan>& known_list() {
  static const std::vector<KnownWan> list = {wan_tiny(), wan_1_3b(), wan22_ti2v_5b(), wan_14b(), wan22_a14b()};
  return list;
}

const KnownWan& find_known(const std::string& name) {
  for (const KnownWan& known : known_list()) {
    if (known.name == name) return known;
  }
  throw ShapeError(fmt::format("wan: no architecture '{}' is known", name));
}

ConfigNode text_node(const char* text) { return ConfigNode::string(text); }
ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }

template <class Values, class Make>
ConfigNode list_node(const Values& values, Make make) {
  ConfigNode::List list;
  for (const auto value : values) list.push_back(make(value));
  return ConfigNode::list(std::move(list));
}

ConfigNode library_class(const char* library, const char* name) {
  return ConfigNode::list({text_node(library), text_node(name)});
}

ConfigNode index_node(const KnownWan& known, const std::string& note) {
  const ModelDefaults& d = known.defaults;
  ConfigNode index =
      ConfigNode::map({{"_class_name", text_node("WanPipeline")},
                       {"_diffusers_version", text_node("0.37.0")},
                       {"_strobe", ConfigNode::map({{"num_frames", integer(d.num_frames)},
                                                    {"height", integer(d.height)},
                                                    {"width", integer(d.width)},
                                                    {"fps", integer(d.fps)},
                                                    {"num_inference_steps", integer(d.num_inference_steps)},
                                                    {"guidance_scale", ConfigNode::number(d.guidance_scale)},
                                                    {"note", ConfigNode::string(note)}})},
                       {"scheduler", library_class("diffusers", "UniPCMultistepScheduler")},
                       {"text_encoder", library_class("transformers", "UMT5EncoderModel")},
                       {"tokenizer", library_class("transformers", "T5TokenizerFast")},
                       {"transformer", library_class("diffusers", "WanTransformer3DModel")},
                       {"vae", library_class("diffusers", "AutoencoderKLWan")}});
  if (known.has_token_timesteps) index.set("expand_timesteps", ConfigNode::boolean(true));
  if (known.stages() == 2) {
    index.set("transformer_2", library_class("diffusers", "WanTransformer3DModel"));
    index.set("boundary_ratio", ConfigNode::number(known.boundary_ratio));
  }
  return index;
}

ConfigNode scheduler_node(const KnownWan& known) {
  return ConfigNode::map({{"_class_name", text_node("UniPCMultistepScheduler")},
                          {"prediction_type", text_node("flow_prediction")},
                          {"use_flow_sigmas", ConfigNode::boolean(true)},
                          {"flow_shift", ConfigNode::number(known.defaults.flow_shift)},
                          {"num_train_timesteps", integer(1000)},
                          {"solver_order", integer(2)},
                          {"solver_type", text_node("bh2")},
                          {"predict_x0", ConfigNode::boolean(true)},
                          {"lower_order_final", ConfigNode::boolean(true)},
                          {"final_sigmas_type", text_node("zero")},
                          {"disable_corrector", ConfigNode::list()}});
}

ConfigNode transformer_node(const WanConfig& config) {
  return ConfigNode::map({{"_class_name", text_node("WanTransformer3DModel")},
                          {"patch_size", list_node(config.patch, integer)},
                          {"num_attention_heads", integer(config.heads)},
                          {"attention_head_dim", integer(config.head_width)},
                          {"in_channels", integer(config.in_channels)},
                          {"out_channels", integer(config.out_channels)},
                          {"text_dim", integer(config.text_width)},
                          {"freq_dim", integer(config.frequency_width)},
                          {"ffn_dim", integer(config.ffn_width)},
                          {"num_layers", integer(config.layers)},
                          {"cross_attn_norm", ConfigNode::boolean(true)},
                          {"qk_norm", text_node("rms_norm_across_heads")},
                          {"eps", ConfigNode::number(config.eps)},
                          {"rope_max_seq_len", integer(config.rope_positions)},
                          {"image_dim", ConfigNode::null()},
                          {"added_kv_proj_dim", ConfigNode::null()},
                          {"pos_embed_seq_len", ConfigNode::null()}});
}

ConfigNode text_encoder_node(const Umt5Config& config) {
  return ConfigNode::map({{"architectures", ConfigNode::list({text_node("UMT5EncoderModel")})},
                          {"model_type", text_node("umt5")},
                          {"vocab_size", integer(config.vocab_size)},
                          {"d_model", integer(config.d_model)},
                          {"d_kv", integer(config.d_kv)},
                          {"d_ff", integer(config.d_ff)},
                          {"num_heads", integer(config.num_heads)},
                          {"num_layers", integer(config.num_layers)},
                          {"num_decoder_layers", integer(config.num_layers)},
                          {"relative_attention_num_buckets", integer(config.num_buckets)},
                          {"relative_attention_max_distance", integer(config.max_distance)},
                          {"feed_forward_proj", text_node("gated-gelu")},
                          {"layer_norm_epsilon", ConfigNode::number(config.layer_norm_eps)},
                          {"dropout_rate", ConfigNode::number(0.0)},
                          {"pad_token_id", integer(0)},
                          {"eos_token_id", integer(1)},
                          {"tie_word_embeddings", ConfigNode::boolean(false)}});
}

// Words that become one token each in the generated tokenizer; everything else is spelled.
const std::vector<std::string> kWords = {
    "a",    "an",     "the",  "on",    "over",  "in",   "of",         "and",    "with",   "large",  "small",
    "red",  "green",  "blue", "white", "black", "gray", "yellow",     "orange", "purple", "circle", "square",
    "star", "moving", "left", "right", "up",    "down", "background", "cat",    "dog",    "walks",  "grass"};

class KnownArchitecture final : public ModelArchitecture {
 public:
  explicit KnownArchitecture(const KnownWan& known) : known_(known) {
    const ConfigNode index = index_node(known, /*note=*/"");
    setup_.info.name = known.name;
    read_wan_index(index, setup_.info);
    setup_.transformers.assign(static_cast<size_t>(known.stages()), known.transformer);
    setup_.vae = known.vae;
    setup_.text_encoder = known.text_encoder;
    complete_wan_setup(setup_, index, scheduler_node(known));
  }

  const ModelInfo& info() const override { return setup_.info; }
  ModelWork compute_work(const WorkQuery& query) const override { return compute_wan_work(setup_, query); }
  std::vector<StoredPart> stored_parts() const override {
    std::vector<StoredPart> parts;
    for (const CheckpointWeights& weights : known_wan_files(known_.name, "").weights) {
      const int64_t count = weights::count_parameters(weights.tensors);
      parts.push_back({.name = weights.folder,
                       .parameters = count,
                       .bytes = {{weights.dtype, count * static_cast<int64_t>(c10::elementSize(weights.dtype))}}});
    }
    return parts;
  }

 private:
  const KnownWan& known_;
  WanSetup setup_;
};

}  // namespace

std::vector<std::string> known_wan_names() {
  std::vector<std::string> names;
  for (const KnownWan& known : known_list()) names.push_back(known.name);
  return names;
}

std::unique_ptr<ModelArchitecture> open_known_wan(const std::string& name) {
  return std::make_unique<KnownArchitecture>(find_known(name));
}

CheckpointFiles known_wan_files(const std::string& name, const std::string& note) {
  const KnownWan& known = find_known(name);
  CheckpointFiles files;
  const auto add_text = [&](const std::string& path, const ConfigNode& node) {
    files.texts.emplace_back(path, weights::to_json(node));
  };
  add_text("model_index.json", index_node(known, note));
  add_text("scheduler/scheduler_config.json", scheduler_node(known));
  add_text("text_encoder/config.json", text_encoder_node(known.text_encoder));
  add_text("vae/config.json", known.vae.to_json());
  const std::string stem = "diffusion_pytorch_model";
  for (int stage = 0; stage < known.stages(); ++stage) {
    const std::string part = stage == 0 ? "transformer" : "transformer_2";
    add_text(part + "/config.json", transformer_node(known.transformer));
    files.weights.push_back({part, stem, wan_parameters(known.transformer), at::kFloat});
  }
  files.weights.push_back({"vae", stem, wan_vae_parameters(known.vae), at::kFloat});
  files.weights.push_back({"text_encoder", "model", umt5_parameters(known.text_encoder), known.text_dtype});
  files.write_tokenizer = [](const std::filesystem::path& folder) { write_word_tokenizer(folder, kWords); };
  return files;
}

}  // namespace strobe::models
