// How fast this machine computes what a model is made of, measured in a fraction of a second.
//
// Method   On a CPU first on one thread, by the time that the thread itself had; then on all threads by the clock, unless
//          the machine is busy. The better one counts: threads that wait for each other are slowed down out of proportion
//          by anything else that runs, one thread's own time is not. Each is repeated for kSecondsEach (once at least),
//          and the best counts, as the first call sets up. Shapes are small ones of the published models; large ones may
//          run a third faster or slower.
// Units    FLOP/s with a multiply-add as 2.
#pragma once

#include "pipelines/pipeline.h"

namespace strobe::pipelines {

struct Rates {
  double linear = 0;       // [tokens, 1536] x [1536, 1536]
  double attention = 0;    // dense, by the kernel that a run would take; head width 128
  double convolution = 0;  // 3x3x3 over 96 channels, float32 as the VAE runs
  double seconds = 0;      // what the measurement took
};

Rates measure_rates(const Device& device);

}  // namespace strobe::pipelines
