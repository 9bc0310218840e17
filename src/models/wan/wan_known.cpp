#include "models/wan/wan_known.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/wan/wan_setup.h"

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

// The bundled model: 17 frames, 9 x 16 x 16 tokens. The autoencoder works on patches of 4 x 4 pixels, so that no
// convolution runs at full resolution, and halves frames, rows and columns once more.
KnownWan sprites() {
  KnownWan known{.name = "sprites"};
  WanConfig& dit = known.transformer;
  dit.heads = 4, dit.head_width = 64, dit.layers = 6, dit.ffn_width = 1024, dit.text_width = 128, dit.patch = {1, 1, 1};
  Umt5Config& text = known.text_encoder;
  text.vocab_size = 128, text.d_model = 128, text.d_kv = 32, text.d_ff = 256, text.num_heads = 4, text.num_layers = 2;
  WanVaeConfig& vae = known.vae;
  vae.base_width = vae.decoder_base_width = 32;
  vae.width_factors = {1, 2};
  vae.halves_frames = {true};
  vae.num_res_blocks = 1;
  vae.patch_size = 4, vae.in_channels = vae.out_channels = 48;
  vae.latents_mean.assign(16, 0.0);
  vae.latents_std.assign(16, 1.0);
  known.defaults = {
      .num_frames = 17, .height = 128, .width = 128, .fps = 8, .num_inference_steps = 20, .guidance_scale = 4.0};
  return known;
}

// What two cores can train: half the arithmetic.
KnownWan sprites_lite() {
  KnownWan known = sprites();
  known.name = "sprites_lite";
  known.transformer.heads = 3, known.transformer.ffn_width = 576;
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
  static const std::vector<KnownWan> list = {wan_tiny(),      sprites_lite(), sprites(),   wan_1_3b(),
                                             wan22_ti2v_5b(), wan_14b(),      wan22_a14b()};
  return list;
}

const KnownWan& find_known(const std::string& name) {
  for (const KnownWan& known : known_list()) {
    if (known.name == name) return known;
  }
  throw ShapeError(fmt::format("wan: no architecture '{}' is known", name));
}

// Words that become one token each in the generated tokenizer; everything else is spelled.
const std::vector<std::string> kWords = {
    "a",    "an",     "the",  "on",    "over",  "in",   "of",         "and",    "with",   "large",  "small",
    "red",  "green",  "blue", "white", "black", "gray", "yellow",     "orange", "purple", "circle", "square",
    "star", "moving", "left", "right", "up",    "down", "background", "cat",    "dog",    "walks",  "grass"};

WanSetup setup_of(const KnownWan& known, const std::string& note) {
  WanSetup setup;
  setup.info.name = known.name;
  setup.info.defaults = known.defaults;
  setup.info.stages = known.stages();
  setup.info.boundary_ratio = known.boundary_ratio;
  setup.info.has_token_timesteps = known.has_token_timesteps;
  setup.info.note = note;
  setup.transformers.assign(static_cast<size_t>(known.stages()), known.transformer);
  setup.vae = known.vae;
  setup.text_encoder = known.text_encoder;
  const ConfigNode index = wan_index_node(setup.info);
  read_wan_index(index, setup.info);
  complete_wan_setup(setup, index, wan_scheduler_node(setup.info));
  return setup;
}

class KnownArchitecture final : public ModelArchitecture {
 public:
  explicit KnownArchitecture(const KnownWan& known) : known_(known), setup_(setup_of(known, /*note=*/"")) {}

  const ModelInfo& info() const override { return setup_.info; }
  ModelWork compute_work(const WorkQuery& query) const override { return compute_wan_work(setup_, query); }
  std::vector<StoredPart> stored_parts() const override {
    std::vector<StoredPart> parts;
    for (const CheckpointWeights& weights : wan_files(setup_, at::kFloat, known_.text_dtype).weights) {
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

WanSetup known_wan_setup(const std::string& name) { return setup_of(find_known(name), /*note=*/""); }

std::unique_ptr<ModelArchitecture> open_known_wan(const std::string& name) {
  return std::make_unique<KnownArchitecture>(find_known(name));
}

CheckpointFiles known_wan_files(const std::string& name, const std::string& note) {
  const KnownWan& known = find_known(name);
  CheckpointFiles files = wan_files(setup_of(known, note), at::kFloat, known.text_dtype);
  files.write_tokenizer = [](const std::filesystem::path& folder) { write_word_tokenizer(folder, kWords); };
  return files;
}

}  // namespace strobe::models
