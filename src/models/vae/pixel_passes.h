// Passes over channels-last float32 pixels that are bound by memory: fused so that each tensor is read and written
// once.
//
// Contract  Tensors are on the CPU, float32 and contiguous, channels last. Runs on LibTorch's threads.
// Cost      one read and one write of every element; without AVX2 the exponential dominates.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::models {

// output = f(input / max(||input||_2, 1e-12) * sqrt(C) * gamma) per pixel over the channels, f = SiLU or identity.
// exp is within 2 ulp of the exact one.
void normalise_channels(const at::Tensor& input,  // [..., C]
                        const at::Tensor& gamma,  // [C]
                        bool with_silu,
                        at::Tensor& output);  // [..., C], not overlapping input

// The gradients of the above: `gradient` is that of its output. Both results are written whole; the same arguments give
// the same bits for any number of threads.
void normalise_channels_backward(const at::Tensor& gradient,  // [..., C]
                                 const at::Tensor& input,     // [..., C]
                                 const at::Tensor& gamma,     // [C]
                                 bool with_silu,
                                 at::Tensor& input_gradient,   // [..., C], not overlapping the others
                                 at::Tensor& gamma_gradient);  // [C]

// Puts the four phases of a 2x upsampling in place: output[f, 2r+a, 2w+b] = phases[f, r+a, w+b, 2a+b].
void interleave_phases(const at::Tensor& phases,  // [F, R+1, W+1, 4 C]
                       at::Tensor& output);       // [F, 2R, 2W, C]

// Its transpose: each phase takes its pixels of `output`, and zeros in the row and the column that it has to spare.
void separate_phases(const at::Tensor& output,  // [F, 2R, 2W, C]
                     at::Tensor& phases);       // [F, R+1, W+1, 4 C]

}  // namespace strobe::models
