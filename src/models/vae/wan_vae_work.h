// The work of a decode, level by level, from the configuration alone.
//
// Units    as models/model_work.h. A level is its blocks and the resampling behind them.
// Checked  against torch's FlopCounterMode on diffusers' AutoencoderKLWan (tests/models/wan/wan_work_test.cpp).
#pragma once

#include "models/model_work.h"
#include "models/vae/wan_vae_config.h"

namespace strobe::models {

// Of latents [C, frames, rows, cols].
DecodeWork compute_wan_decode_work(const WanVaeConfig& config, int64_t frames, int64_t rows, int64_t cols);

}  // namespace strobe::models
