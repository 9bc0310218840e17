// Wan model folders: the diffusers layout (wan.md 1.1) and the original releases (1.6).
#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include "core/error.h"
#include "models/model_folder.h"
#include "models/text/prompt_cleaning.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/text/umt5.h"
#include "models/vae/wan_vae.h"
#include "models/vae/wan_vae_config.h"
#include "models/wan/wan.h"
#include "models/wan/wan_known.h"
#include "models/wan/wan_lora.h"
#include "models/wan/wan_setup.h"
#include "models/wan/wan_trainable.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSchedulerFile = "scheduler_config.json";

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

// What a folder of the diffusers layout has in it, and the files of which one must be there; none: that is told when its
// weights are opened.
struct NeededPart {
  fs::path path;
  std::vector<const char*> any_of{};
};

void check_parts(const fs::path& root, const std::vector<NeededPart>& parts) {
  std::vector<std::string> missing;
  for (const NeededPart& part : parts) {
    const std::string name = part.path.filename().string();
    std::error_code error;
    if (!fs::is_directory(part.path, error)) {
      missing.push_back(fmt::format("no {}/ folder", name));
    } else if (!part.any_of.empty() && std::none_of(part.any_of.begin(), part.any_of.end(),
                                                    [&](const char* file) { return has_file(part.path / file); })) {
      missing.push_back(fmt::format("no {0}/{1}", name, fmt::join(part.any_of, fmt::format(" or {}/", name))));
    }
  }
  if (missing.empty()) return;
  throw WeightError(fmt::format("{}: {}; model_index.json asks for {}", root.string(), fmt::join(missing, ", "),
                                missing.size() == 1 ? "it" : "them"));
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

  const ModelInfo& info() const override { return setup_.info; }
  std::vector<StoredPart> stored_parts() const override;
  std::vector<PartPath> part_paths() const override;
  std::vector<std::string> find_non_finite(const std::string& part, size_t most) const override;
  ModelWork compute_work(const WorkQuery& query) const override { return compute_wan_work(setup_, query); }
  std::unique_ptr<Tokenizer> load_tokenizer() const override { return open_tokenizer(parts_.tokenizer); }
  std::unique_ptr<TextEncoder> load_text_encoder(at::ScalarType dtype, at::Device device) const override;
  weights::LoraPlan plan_loras(const std::vector<weights::Lora>& loras) const override {
    return plan_wan_loras(setup_.transformers, loras);
  }
  std::unique_ptr<DiTModel> load_dit(int stage, const DitOptions& options) const override;
  std::unique_ptr<Vae> load_vae(at::ScalarType dtype, at::Device device) const override;
  std::string clean_prompt(const std::string& prompt) const override { return models::clean_prompt(prompt); }
  std::unique_ptr<TrainableModel> open_trainable() const override;

 private:
  void find_diffusers_parts(const ConfigNode& index);
  void find_original_parts();
  void read_configs();
  void check_weights() const;
  weights::WeightStore bind_dit(size_t stage) const;
  weights::WeightStore bind_text_encoder() const;
  weights::WeightStore bind_vae() const;

  Parts parts_;
  WanSetup setup_;
};

void WanFolder::find_diffusers_parts(const ConfigNode& index) {
  const fs::path& root = setup_.info.folder;
  read_wan_index(index, setup_.info);
  parts_.transformers = {root / "transformer"};
  if (setup_.info.stages == 2) parts_.transformers.push_back(root / "transformer_2");
  parts_.vae = root / "vae";
  parts_.text_encoder = root / "text_encoder";
  parts_.tokenizer = root / "tokenizer";
  std::vector<NeededPart> needed;
  for (const fs::path& transformer : parts_.transformers) needed.push_back({transformer});
  needed.insert(needed.end(), {{parts_.vae, {"config.json"}},
                               {parts_.text_encoder, {"config.json"}},
                               {parts_.tokenizer, {"tokenizer.json", "spiece.model"}}});
  if (lists_wan_part(index, "scheduler")) needed.push_back({root / "scheduler", {kSchedulerFile}});
  check_parts(root, needed);
}

void WanFolder::find_original_parts() {
  const fs::path& root = setup_.info.folder;
  parts_.is_original = true;
  if (has_file(root / "high_noise_model")) {
    parts_.transformers = {root / "high_noise_model", root / "low_noise_model"};
    setup_.info.boundary_ratio = 0.875;
    setup_.info.stages = 2;
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

void WanFolder::read_configs() {
  for (const fs::path& part : parts_.transformers) {
    setup_.transformers.push_back(transformer_config(part, *weights::open_weights(part)));
  }
  if (parts_.is_original) {
    setup_.vae = WanVaeConfig::from_tensors(*weights::open_weights(parts_.vae));
    setup_.text_encoder = Umt5Config::from_tensors(*weights::open_weights(parts_.text_encoder));
    setup_.info.has_token_timesteps = setup_.vae.is_residual;
  } else {
    setup_.vae = WanVaeConfig::from_json(weights::load_json(parts_.vae / "config.json"));
    setup_.text_encoder = Umt5Config::from_json(weights::load_json(parts_.text_encoder / "config.json"));
  }
}

WanFolder::WanFolder(const fs::path& folder) {
  setup_.info.folder = folder;
  setup_.info.name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  ConfigNode index;
  if (has_file(folder / "model_index.json")) {
    index = weights::load_json(folder / "model_index.json");
    find_diffusers_parts(index);
  } else {
    find_original_parts();
  }
  read_configs();
  std::optional<ConfigNode> scheduler;
  const fs::path path = folder / "scheduler" / kSchedulerFile;
  if (has_file(path)) scheduler = weights::load_json(path);
  complete_wan_setup(setup_, index, scheduler);
  check_weights();
}

// By the headers alone: a configuration that contradicts its tensors is told before any work, not after the text was
// encoded.
void WanFolder::check_weights() const {
  for (size_t stage = 0; stage < parts_.transformers.size(); ++stage) bind_dit(stage);
  bind_text_encoder();
  bind_vae();
}

weights::WeightStore WanFolder::bind_dit(size_t stage) const {
  auto source = weights::open_weights(parts_.transformers.at(stage));
  return weights::WeightStore::bind(source, wan_parameters(setup_.transformers.at(stage)),
                                    stage == 0 ? "transformer" : "transformer_2", wan_rename(*source));
}

weights::WeightStore WanFolder::bind_text_encoder() const {
  auto source = weights::open_weights(parts_.text_encoder);
  return weights::WeightStore::bind(source, umt5_parameters(setup_.text_encoder), "text_encoder", umt5_rename(*source));
}

weights::WeightStore WanFolder::bind_vae() const {
  auto source = weights::open_weights(parts_.vae);
  return weights::WeightStore::bind(source, wan_vae_parameters(setup_.vae), "vae", wan_vae_rename(setup_.vae, *source));
}

StoredPart read_stored_part(const std::string& name, const fs::path& path) {
  StoredPart part{.name = name};
  std::map<at::ScalarType, int64_t> sums;
  const auto source = weights::open_weights(path);
  for (const weights::TensorInfo& tensor : source->tensors()) {
    const auto bytes = static_cast<int64_t>(weights::stored_bytes(tensor));
    sums[tensor.dtype] += bytes;
    part.parameters += bytes / static_cast<int64_t>(c10::elementSize(tensor.dtype));
  }
  part.bytes.assign(sums.begin(), sums.end());
  std::sort(part.bytes.begin(), part.bytes.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return part;
}

std::vector<StoredPart> WanFolder::stored_parts() const {
  std::vector<StoredPart> parts;
  for (size_t stage = 0; stage < parts_.transformers.size(); ++stage) {
    parts.push_back(read_stored_part(stage == 0 ? "transformer" : "transformer_2", parts_.transformers[stage]));
  }
  parts.push_back(read_stored_part("vae", parts_.vae));
  parts.push_back(read_stored_part("text_encoder", parts_.text_encoder));
  return parts;
}

std::vector<PartPath> WanFolder::part_paths() const {
  std::vector<PartPath> parts;
  for (size_t stage = 0; stage < parts_.transformers.size(); ++stage) {
    parts.push_back({stage == 0 ? "transformer" : "transformer_2", parts_.transformers[stage]});
  }
  parts.insert(parts.end(),
               {{"vae", parts_.vae}, {"text_encoder", parts_.text_encoder}, {"tokenizer", parts_.tokenizer}});
  for (const char* name : {"scheduler", "model_index.json"}) {
    if (has_file(setup_.info.folder / name)) parts.push_back({name, setup_.info.folder / name});
  }
  return parts;
}

std::vector<std::string> WanFolder::find_non_finite(const std::string& part, size_t most) const {
  std::vector<std::string> names;
  for (const PartPath& known : part_paths()) {
    if (known.name != part) continue;
    const auto source = weights::open_weights(known.path);
    for (const weights::TensorInfo& tensor : source->tensors()) {
      if (names.size() >= most) return names;
      if (!at::isFloatingType(tensor.dtype)) continue;
      if (!at::isfinite(source->read(tensor.name)).all().item<bool>()) {
        names.push_back(fmt::format("{}: {}", source->file_of(tensor.name), tensor.name));
      }
      source->release(tensor.name);
    }
  }
  return names;
}

std::unique_ptr<TextEncoder> WanFolder::load_text_encoder(at::ScalarType dtype, at::Device device) const {
  return make_umt5(setup_.text_encoder, bind_text_encoder(), dtype, device);
}

std::unique_ptr<DiTModel> WanFolder::load_dit(int stage, const DitOptions& options) const {
  const auto index = static_cast<size_t>(stage);
  auto store = bind_dit(index);
  store.set_patches(options.patches);
  return make_wan_dit(setup_.transformers.at(index), store, options.dtype, options.device, options.residency);
}

std::unique_ptr<Vae> WanFolder::load_vae(at::ScalarType dtype, at::Device device) const {
  return make_wan_vae(setup_.vae, bind_vae(), dtype, device);
}

std::unique_ptr<TrainableModel> WanFolder::open_trainable() const {
  NamedTensors (*read)(const weights::WeightStore&) = [](const weights::WeightStore& store) {
    NamedTensors tensors;
    for (const weights::TensorSpec& spec : store.specs()) {
      tensors[spec.name] = store.load_stored(spec.name).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    }
    return tensors;
  };
  // The folder's files are opened again when they are read, so that the model does not hold this object.
  return make_wan_trainable(setup_, [folder = setup_.info.folder, read](const std::string& part) {
    const WanFolder again(folder);
    if (part == "transformer") return read(again.bind_dit(0));
    return read(part == "vae" ? again.bind_vae() : again.bind_text_encoder());
  });
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

  std::vector<std::string> known_names() const override { return known_wan_names(); }
  std::unique_ptr<ModelArchitecture> open_known(const std::string& name) const override { return open_known_wan(name); }
  CheckpointFiles known_files(const std::string& name, const std::string& note) const override {
    return known_wan_files(name, note);
  }
  std::unique_ptr<TrainableModel> open_trainable(const std::string& known_name) const override {
    return make_wan_trainable(known_wan_setup(known_name), {});
  }
};

}  // namespace

std::unique_ptr<ModelFamily> make_wan_family() { return std::make_unique<WanFamily>(); }

}  // namespace strobe::models
