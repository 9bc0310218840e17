// Layers of the Wan autoencoders over whole clips, as functions of their tensors, with gradients.
//
// Contract  Frames are [F, B, R, W, C], contiguous: the frames that meet one temporal tap are one block of memory and
//           channels are last. Weights are laid out as in the checkpoint. Any floating dtype and device; autograd
//           records each call, none overwrites its arguments.
// Method    A causal 3x3x3 convolution is three 2-D ones, one for each temporal tap over the frames that meet it:
//           nothing is padded and no tap meets the zeros before the clip. On the CPU in float32, norm with SiLU and the
//           interleaving after an upsampling are passes of their own in both directions.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::models::whole {

// x / max(||x||_2, 1e-12) * sqrt(C) * gamma over the channels, then SiLU if asked for; float16 and bfloat16 in float32.
at::Tensor channel_norm(const at::Tensor& frames, const at::Tensor& gamma, bool with_silu);

// `weight` is [out, in, 3, 3, 3].
at::Tensor causal_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias);

// A zero row below and column on the right, then a 3x3 convolution with stride 2.
at::Tensor downsample_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias);

// Nearest 2x upsampling followed by a 3x3 convolution, computed as UpsampleConv of wan_vae_layers.h does: four 2x2
// kernels on the small image.
at::Tensor upsample_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias);

// Frame 0, then the temporal convolution of stride 2 over all 2 k + 1 frames; `weight` is [C, C, 3, 1, 1].
at::Tensor halve_frames(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias);

// Frame 0, then two frames for each other one, from a causal convolution over those; `weight` is [2 C, C, 3, 1, 1].
at::Tensor double_frames(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias);

// The shortcut around a residual encoder level: means over groups of channels, frames, rows and columns, the clip
// lengthened by zeros in front.
at::Tensor average_level(const at::Tensor& frames, int64_t out_width, int64_t frame_factor, int64_t pixel_factor);
// The one around a residual decoder level: copies of the same, without the first frame_factor - 1 frames.
at::Tensor repeat_level(const at::Tensor& frames, int64_t out_width, int64_t frame_factor, int64_t pixel_factor);

}  // namespace strobe::models::whole
