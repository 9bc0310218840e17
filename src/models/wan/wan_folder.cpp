// Wan model folders: the diffusers layout (wan.md 1.1) and the original releases (1.6).
#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/model_folder.h"
#include "models/text/prompt_cleaning.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/text/umt5.h"
#include "models/vae/wan_vae.h"
#include "models/vae/wan_vae_config.h"
#include "models/wan/wan.h"
#include "models/wan/wan_lora.h"
#include "models/wan/wan_tiny.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;

// Where each part of the model lies; an empty path is a part that the folder does not have.
struct Parts {
  std::vector<fs::path> transformers;  // by stage
  fs::path vae, text_encoder, tokenizer;
  bool is_original = false;
};

bool has_file(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

fs::path first_existing(const fs::path& folder, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (has_file(folder / name)) return folder / name;
  }
  return {};
}

WanConfig transformer_config(const fs::path& part, const weights::TensorSource& source) {
  if (!has_file(part / "config.json")) return WanConfig::from_tensors(source);
  const ConfigNode node = weights::load_json(part / "config.json");
  WanConfig config = WanConfig::from_json(node);
  if (node.find("dim")) {
    // Original configurations do not say whether an image branch is there; the tensors do.
    const WanConfig found = WanConfig::from_tensors(source);
    config.image_width = found.image_width;
    config.image_positions = found.image_positions;
    config.text_width = found.text_width;
  }
  return config;
}

class WanFolder final : public ModelFolder {
 public:
  explicit WanFolder(const fs::path& folder);

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<Tokenizer> load_tokenizer() const override { return open_tokenizer(parts_.tokenizer); }
  std::unique_ptr<TextEncoder> load_text_encoder(at::ScalarType dtype, at::Device device) const override;
  weights::LoraPlan plan_loras(const std::vector<weights::Lora>& loras) const override {
    return plan_wan_loras(dit_configs_, loras);
  }
  std::unique_ptr<DiTModel> load_dit(int stage, const DitOptions& options) const override;
  std::unique_ptr<Vae> load_vae(at::ScalarType dtype, at::Device device) const override;
  std::string clean_prompt(const std::string& prompt) const override { return models::clean_prompt(prompt); }

 private:
  void find_diffusers_parts(const ConfigNode& index);
  void find_original_parts();
  void read_configs();
  void check_parts_fit() const;
  void read_scheduler();
  void read_defaults(const ConfigNode& index);

  Parts parts_;
  ModelInfo info_;
  std::vector<WanConfig> dit_configs_;  // by stage
  WanVaeConfig vae_config_;
  Umt5Config text_config_;
};

void WanFolder::find_diffusers_parts(const ConfigNode& index) {
  const fs::path& root = info_.folder;
  parts_.transformers = {root / "transformer"};
  const ConfigNode* second = index.find("transformer_2");
  const bool has_second = second && second->is_list() && !second->as_list().empty() && second->as_list()[0].is_string();
  if (has_second) parts_.transformers.push_back(root / "transformer_2");
  info_.boundary_ratio = index.get_number("boundary_ratio", 0);
  if (has_second != (info_.boundary_ratio > 0)) {
    index.fail("transformer_2 and boundary_ratio belong together: one is given, the other is not");
  }
  info_.has_token_timesteps = index.get_bool("expand_timesteps", false);
  parts_.vae = root / "vae";
  parts_.text_encoder = root / "text_encoder";
  parts_.tokenizer = root / "tokenizer";
}

void WanFolder::find_original_parts() {
  const fs::path& root = info_.folder;
  parts_.is_original = true;
  if (has_file(root / "high_noise_model")) {
    parts_.transformers = {root / "high_noise_model", root / "low_noise_model"};
    info_.boundary_ratio = 0.875;
  } else {
    parts_.transformers = {root};
  }
  parts_.vae =
      first_existing(root, {"Wan2.1_VAE.pth", "Wan2.2_VAE.pth", "Wan2.1_VAE.safetensors", "Wan2.2_VAE.safetensors"});
  parts_.text_encoder =
      first_existing(root, {"models_t5_umt5-xxl-enc-bf16.pth", "models_t5_umt5-xxl-enc-bf16.safetensors"});
  parts_.tokenizer = first_existing(root, {"google/umt5-xxl", "tokenizer"});
  if (parts_.vae.empty() || parts_.text_encoder.empty() || parts_.tokenizer.empty()) {
    throw WeightError(
        fmt::format("{}: an original Wan folder needs Wan2.1_VAE.pth or Wan2.2_VAE.pth, "
                    "models_t5_umt5-xxl-enc-bf16.pth and google/umt5-xxl/",
                    root.string()));
  }
}

void WanFolder::read_scheduler() {
  const fs::path path = info_.folder / "scheduler" / "scheduler_config.json";
  if (!has_file(path)) {
    info_.defaults.flow_shift = 5.0;  // the original repositories' default
    return;
  }
  const ConfigNode node = weights::load_json(path);
  const std::string type = node.get_string("_class_name", "UniPCMultistepScheduler");
  if (type == "FlowMatchEulerDiscreteScheduler") {
    info_.defaults.scheduler = "euler";
    info_.defaults.flow_shift = node.get_number("shift", 1.0);
    if (node.get_bool("use_dynamic_shifting", false))
      node.at("use_dynamic_shifting").fail("only a static shift is supported");
    return;
  }
  if (type != "UniPCMultistepScheduler") {
    node.fail(fmt::format(
        "scheduler '{}' is not supported; known: UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler", type));
  }
  info_.defaults.flow_shift = node.get_number("flow_shift", 1.0);
  // The sampler is the one that every published Wan file asks for; any other setting would change the numbers.
  const auto expect = [&](const char* key, const std::string& wanted) {
    if (node.find(key) && node.get_string(key, wanted) != wanted)
      node.at(key).fail(fmt::format("only '{}' is supported", wanted));
  };
  expect("prediction_type", "flow_prediction");
  expect("solver_type", "bh2");
  expect("final_sigmas_type", "zero");
  if (node.get_integer("solver_order", 2) != 2) node.at("solver_order").fail("only order 2 is supported");
  if (!node.get_bool("use_flow_sigmas", true)) node.at("use_flow_sigmas").fail("only flow sigmas are supported");
  if (!node.get_bool("predict_x0", true)) node.at("predict_x0").fail("only true is supported");
  if (!node.get_bool("lower_order_final", true))
    node.at("lower_order_final").fail("only true is supported with a final sigma of zero");
}

void WanFolder::read_defaults(const ConfigNode& index) {
  ModelDefaults& d = info_.defaults;
  if (info_.stages == 2) {
    d.height = 720, d.width = 1280, d.num_inference_steps = 40, d.guidance_scale = 4.0, d.guidance_scale_2 = 3.0;
  } else if (info_.has_token_timesteps) {
    d.height = 704, d.width = 1280, d.num_frames = 121, d.fps = 24;
  }
  // Our own bundles say what they were made for; diffusers skips keys that begin with an underscore.
  if (const ConfigNode* own = index.find("_strobe")) {
    d.num_frames = own->get_integer("num_frames", d.num_frames);
    d.height = own->get_integer("height", d.height);
    d.width = own->get_integer("width", d.width);
    d.fps = own->get_integer("fps", d.fps);
    d.num_inference_steps = static_cast<int>(own->get_integer("num_inference_steps", d.num_inference_steps));
    d.guidance_scale = own->get_number("guidance_scale", d.guidance_scale);
    info_.note = own->get_string("note", "");
  }
}

void WanFolder::read_configs() {
  for (const fs::path& part : parts_.transformers) {
    dit_configs_.push_back(transformer_config(part, *weights::open_weights(part)));
  }
  if (parts_.is_original) {
    vae_config_ = WanVaeConfig::from_tensors(*weights::open_weights(parts_.vae));
    text_config_ = Umt5Config::from_tensors(*weights::open_weights(parts_.text_encoder));
    info_.has_token_timesteps = vae_config_.is_residual;
  } else {
    vae_config_ = WanVaeConfig::from_json(weights::load_json(parts_.vae / "config.json"));
    text_config_ = Umt5Config::from_json(weights::load_json(parts_.text_encoder / "config.json"));
  }
}

void WanFolder::check_parts_fit() const {
  for (const WanConfig& dit : dit_configs_) {
    if (vae_config_.latent_channels != dit.out_channels) {
      throw ConfigError(fmt::format("{}: the transformer makes {} latent channels, the VAE reads {}",
                                    info_.folder.string(), dit.out_channels, vae_config_.latent_channels));
    }
    if (text_config_.d_model != dit.text_width) {
      throw ConfigError(fmt::format("{}: the text encoder makes embeddings of width {}, the transformer reads {}",
                                    info_.folder.string(), text_config_.d_model, dit.text_width));
    }
    if (dit.patch != dit_configs_.front().patch || dit.in_channels != dit_configs_.front().in_channels) {
      throw ConfigError(
          fmt::format("{}: the two transformers differ in patch or input channels", info_.folder.string()));
    }
  }
}

WanFolder::WanFolder(const fs::path& folder) {
  info_.family = "wan";
  info_.folder = folder;
  info_.name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  ConfigNode index;
  if (has_file(folder / "model_index.json")) {
    index = weights::load_json(folder / "model_index.json");
    find_diffusers_parts(index);
  } else {
    find_original_parts();
  }
  info_.stages = static_cast<int>(parts_.transformers.size());

  read_configs();
  check_parts_fit();
  const WanConfig& dit = dit_configs_.front();
  info_.latent_channels = vae_config_.latent_channels;
  info_.input_channels = dit.in_channels;
  info_.temporal_stride = vae_config_.temporal_stride();
  info_.spatial_stride = vae_config_.spatial_stride();
  info_.size_multiple = info_.spatial_stride * std::max(dit.patch[1], dit.patch[2]);
  info_.dit_parameters = weights::count_parameters(wan_parameters(dit));
  info_.vae_parameters = weights::count_parameters(wan_vae_parameters(vae_config_));
  info_.text_encoder_parameters = weights::count_parameters(umt5_parameters(text_config_));
  read_scheduler();
  read_defaults(index);
}

std::unique_ptr<TextEncoder> WanFolder::load_text_encoder(at::ScalarType dtype, at::Device device) const {
  auto source = weights::open_weights(parts_.text_encoder);
  auto store = weights::WeightStore::bind(source, umt5_parameters(text_config_), "text_encoder", umt5_rename(*source));
  return make_umt5(text_config_, std::move(store), dtype, device);
}

std::unique_ptr<DiTModel> WanFolder::load_dit(int stage, const DitOptions& options) const {
  const auto index = static_cast<size_t>(stage);
  auto source = weights::open_weights(parts_.transformers.at(index));
  const WanConfig& config = dit_configs_.at(index);
  auto store = weights::WeightStore::bind(source, wan_parameters(config), stage == 0 ? "transformer" : "transformer_2",
                                          wan_rename(*source));
  store.set_patches(options.patches);
  return make_wan_dit(config, store, options.dtype, options.device);
}

std::unique_ptr<Vae> WanFolder::load_vae(at::ScalarType dtype, at::Device device) const {
  auto source = weights::open_weights(parts_.vae);
  auto store =
      weights::WeightStore::bind(source, wan_vae_parameters(vae_config_), "vae", wan_vae_rename(vae_config_, *source));
  return make_wan_vae(vae_config_, store, dtype, device);
}

class WanFamily final : public ModelFamily {
 public:
  std::string name() const override { return "wan"; }

  bool recognises(const fs::path& folder) const override {
    if (has_file(folder / "model_index.json")) {
      return weights::load_json(folder / "model_index.json").get_string("_class_name", "").starts_with("Wan");
    }
    for (const char* part : {"config.json", "high_noise_model/config.json"}) {
      if (!has_file(folder / part)) continue;
      const ConfigNode config = weights::load_json(folder / part);
      if (config.get_string("_class_name", "") == "WanModel" || config.find("ffn_dim")) return true;
    }
    return false;
  }

  std::unique_ptr<ModelFolder> open(const fs::path& folder) const override {
    return std::make_unique<WanFolder>(folder);
  }

  void write_tiny_model(const fs::path& folder, uint64_t seed) const override { write_tiny_wan(folder, seed); }
};

}  // namespace

std::unique_ptr<ModelFamily> make_wan_family() { return std::make_unique<WanFamily>(); }

}  // namespace strobe::models
