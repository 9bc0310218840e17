// The keys of a training file: of the run, and of each of its stages. Free of LibTorch; training_run.h reads the values.
#pragma once

#include "config/key_table.h"

namespace strobe::pipelines {

// Everything but `stages`.
const config::KeyTable& train_keys();
// Of an entry of `stages`.
const config::KeyTable& train_stage_keys();

}  // namespace strobe::pipelines
