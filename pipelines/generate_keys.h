// The table of everything `generate` takes.
//
// Contract  A key is declared in generate_keys.cpp and nowhere else: files, prompt files, --set, flags, help, completion
//           and the JSON schema all come from that row; other commands pick the rows that they share. Free of LibTorch,
//           so that help and errors of the command line need not wait for it. request.h reads the values.
#pragma once

#include <string>
#include <vector>

#include "config/key_table.h"

namespace strobe::pipelines {

const config::KeyTable& generate_keys();

// A table of `more` and the named rows of generate's.
config::KeyTable pick_keys(const std::vector<std::string>& names, std::vector<config::KeySpec> more = {});

}  // namespace strobe::pipelines
