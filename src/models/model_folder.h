// A model on disk: its parts, loaded one by one when they are needed, and the facts a pipeline asks about it.
//
// A family (models.inc) recognises a folder and opens it; nothing outside the family's folder knows its file names.
#pragma once

#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/config_node.h"
#include "models/dit_model.h"
#include "models/model_work.h"
#include "models/random_checkpoint.h"
#include "models/text/text_encoder.h"
#include "models/vae/vae.h"
#include "weights/lora.h"

namespace strobe::models {

// What a clip of this model is unless the user says otherwise.
struct ModelDefaults {
  int64_t num_frames = 81;
  int64_t height = 480;
  int64_t width = 832;
  int64_t fps = 16;
  int num_inference_steps = 50;
  double guidance_scale = 5.0;
  double guidance_scale_2 = 0;  // second expert; 0: as the first
  double flow_shift = 3.0;
  std::string scheduler = "unipc";
  std::string negative_prompt;
};

struct ModelInfo {
  std::string family;
  std::string name;  // for people: the folder's last part
  std::filesystem::path folder;
  std::string note;  // "random weights: the clip shows texture, not the prompt"; empty for trained ones
  ModelDefaults defaults;
  int stages = 1;             // experts
  double boundary_ratio = 0;  // stage 0 runs while timestep >= boundary_ratio * 1000; 0: one expert
  bool has_token_timesteps = false;
  int64_t latent_channels = 16;
  int64_t input_channels = 16;  // what the transformer reads; more than the latents where a given image is part of it
  int64_t temporal_stride = 4;
  int64_t spatial_stride = 8;  // of the VAE
  int64_t size_multiple = 16;  // pixels: VAE stride times patch
  int64_t padded_text_tokens = 512;
  int64_t dit_parameters = 0;  // of one expert
  int64_t text_encoder_parameters = 0;
  int64_t vae_parameters = 0;
};

struct DitOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  Residency residency = Residency::kLoaded;
  std::shared_ptr<const weights::WeightPatches> patches{};  // of this stage (LoRA); null: the weights as they are
};

// What is known of a model without reading its weights.
class ModelArchitecture {
 public:
  virtual ~ModelArchitecture() = default;
  virtual const ModelInfo& info() const = 0;
  // Tensors as stored, or as the published files store them. May open files for their headers.
  virtual std::vector<StoredPart> stored_parts() const = 0;
  virtual ModelWork compute_work(const WorkQuery& query) const = 0;
};

// A part of a model on disk: "transformer", and its file or folder.
struct PartPath {
  std::string name;
  std::filesystem::path path;
};

class TrainableModel;  // trainable_model.h

class ModelFolder : public ModelArchitecture {
 public:
  // Everything that shapes a clip: weights of every part, the tokenizer, the scheduler's settings.
  virtual std::vector<PartPath> part_paths() const = 0;
  // Names of weights of a part that hold NaN or infinity, at most `most`; reads the whole part.
  virtual std::vector<std::string> find_non_finite(const std::string& part, size_t most) const = 0;
  virtual std::unique_ptr<Tokenizer> load_tokenizer() const = 0;
  virtual std::unique_ptr<TextEncoder> load_text_encoder(at::ScalarType dtype, at::Device device) const = 0;
  // Matches LoRA files with the transformers by name and shape, before any weight is read, and says what it found.
  virtual weights::LoraPlan plan_loras(const std::vector<weights::Lora>& loras) const = 0;
  virtual std::unique_ptr<DiTModel> load_dit(int stage, const DitOptions& options) const = 0;
  virtual std::unique_ptr<Vae> load_vae(at::ScalarType dtype, at::Device device) const = 0;
  virtual std::string clean_prompt(const std::string& prompt) const = 0;
  virtual std::unique_ptr<TrainableModel> open_trainable() const = 0;
};

class ModelFamily {
 public:
  virtual ~ModelFamily() = default;
  virtual std::string name() const = 0;
  virtual bool recognises(const std::filesystem::path& folder) const = 0;
  virtual std::unique_ptr<ModelFolder> open(const std::filesystem::path& folder) const = 0;
  // Architectures that are known without weights, the smallest first.
  virtual std::vector<std::string> known_names() const = 0;
  virtual std::unique_ptr<ModelArchitecture> open_known(const std::string& name) const = 0;
  // The files of such a model as they are published, for random_checkpoint.h; `note` goes where ModelInfo's comes from.
  virtual CheckpointFiles known_files(const std::string& name, const std::string& note) const = 0;
  virtual std::unique_ptr<TrainableModel> open_trainable(const std::string& known_name) const = 0;
};

std::vector<std::string> family_names();
// The family of a name; ConfigError with the nearest one.
std::unique_ptr<ModelFamily> make_family(const std::string& name);
// Of all families. ConfigError with the nearest name for an unknown one.
std::vector<std::string> known_model_names();
std::unique_ptr<ModelFamily> family_of_known(const std::string& name);
// Asks every family. ConfigError that says what a model folder looks like if none recognises it.
std::unique_ptr<ModelFolder> open_model_folder(const std::filesystem::path& folder);

}  // namespace strobe::models
