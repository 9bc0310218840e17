// Damage that a checker has to bear, for measuring how much.
#pragma once

#include <cstdint>

#include "training/sprites/checker/checker.h"

namespace strobe::training::sprites {

// Normal noise of this standard deviation (of levels in 0..1) on every value, a function of (seed, index); clamped.
void add_noise(ClipPixels& clip, double deviation, uint64_t seed, uint64_t index);

// Gaussian blur of each frame, sigma in px.
void blur(ClipPixels& clip, double sigma_px);

}  // namespace strobe::training::sprites
