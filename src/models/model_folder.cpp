#include "models/model_folder.h"

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "models/trainable_model.h"

namespace strobe::models {

#define STROBE_MODEL(name) std::unique_ptr<ModelFamily> make_##name##_family();
#include "models/models.inc"
#undef STROBE_MODEL

std::vector<std::string> family_names() {
  return {
#define STROBE_MODEL(name) #name,
#include "models/models.inc"
#undef STROBE_MODEL
  };
}

std::unique_ptr<ModelFamily> make_family(const std::string& name) {
#define STROBE_MODEL(row) \
  if (name == #row) return make_##row##_family();
#include "models/models.inc"
#undef STROBE_MODEL
  throw ConfigError(unknown_name_message("model family", name, family_names()));
}

std::vector<std::string> known_model_names() {
  std::vector<std::string> names;
  for (const std::string& family : family_names()) {
    for (std::string& name : make_family(family)->known_names()) names.push_back(std::move(name));
  }
  return names;
}

std::unique_ptr<ModelFamily> family_of_known(const std::string& name) {
  for (const std::string& family_name : family_names()) {
    auto family = make_family(family_name);
    const std::vector<std::string> names = family->known_names();
    if (std::find(names.begin(), names.end(), name) != names.end()) return family;
  }
  throw ConfigError(unknown_name_message("architecture", name, known_model_names()));
}

std::unique_ptr<TrainableModel> open_trainable_model(const std::string& name_or_folder) {
  std::error_code error;
  if (std::filesystem::is_directory(name_or_folder, error)) return open_model_folder(name_or_folder)->open_trainable();
  return family_of_known(name_or_folder)->open_trainable(name_or_folder);
}

std::unique_ptr<ModelFolder> open_model_folder(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    const std::vector<std::string> names = known_model_names();
    if (std::find(names.begin(), names.end(), folder.string()) != names.end()) {
      throw ConfigError(
          fmt::format("--model {0}: an architecture without weights; 'strobe plan --model {0}' tells what it costs, "
                      "'strobe models make-random DIR --like {0}' writes a random checkpoint of it",
                      folder.string()));
    }
    const std::string nearest = nearest_name(folder.string(), names);
    throw ConfigError(fmt::format("--model {}: no such folder{}", folder.string(),
                                  nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)));
  }
  for (const std::string& name : family_names()) {
    auto family = make_family(name);
    if (family->recognises(folder)) return family->open(folder);
  }
  throw ConfigError(fmt::format(
      "--model {}: not a model folder: expected model_index.json with transformer/, vae/, text_encoder/ and "
      "tokenizer/ (diffusers layout), or config.json of an original Wan release",
      folder.string()));
}

}  // namespace strobe::models
