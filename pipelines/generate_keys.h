// The table of everything `generate` takes, and how an effective map of it becomes a request.
//
// Contract  A key is declared in generate_keys.cpp and nowhere else: files, prompt files, --set, flags, help and the JSON
//           schema all come from that row. `to_request` reads the keys that describe a clip.
#pragma once

#include "config/key_table.h"
#include "pipelines/request.h"

namespace strobe::pipelines {

const config::KeyTable& generate_keys();

// `effective` as config::compose makes it. `prompt` must hold one text or none. ConfigError for what fits no request.
Request to_request(const ConfigNode& effective);

}  // namespace strobe::pipelines
