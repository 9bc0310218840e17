// Frames as every part of Strobe hands them around: [F, height, width, 3] uint8 RGB, contiguous, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace strobe::video {

struct FrameRate {
  int64_t numerator = 16;
  int64_t denominator = 1;
  double per_second() const { return static_cast<double>(numerator) / static_cast<double>(denominator); }
};

// Model output [3, n, height, width] float32 in [-1, 1] to frames: round(255 * clamp(x/2 + 1/2)), half to even.
at::Tensor to_frames(const at::Tensor& video);

// Frames to model input [3, n, height, width] float32: 2 * u/255 - 1.
at::Tensor from_frames(const at::Tensor& frames);

}  // namespace strobe::video
