// The published Wan text-to-video models, known without their weights, and a small one for tests and first steps.
//
// Source   the configuration files of the Wan-AI repositories in diffusers layout. Stored dtypes are those whose bytes
//          the published files have: float32, but for the text encoder of 2.2 (bfloat16).
// Errors   the names are those of known_wan_names(); another one is a mistake of the caller.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/model_folder.h"
#include "models/wan/wan_setup.h"

namespace strobe::models {

std::vector<std::string> known_wan_names();
WanSetup known_wan_setup(const std::string& name);
std::unique_ptr<ModelArchitecture> open_known_wan(const std::string& name);
CheckpointFiles known_wan_files(const std::string& name, const std::string& note);

}  // namespace strobe::models
