#include "models/model_folder.h"

#include "core/error.h"
#include "core/nearest.h"

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

std::unique_ptr<ModelFolder> open_model_folder(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw ConfigError(fmt::format("--model {}: no such folder", folder.string()));
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
