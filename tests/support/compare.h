// The one comparer of tensors, and the golden summaries (mean, rms, eight elements) of the specification's tables.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strobe::test {

struct Tolerance {
  double relative_l2 = 1e-5;  // ||a - b|| / ||b|| over the call
  double worst_row =
      0;  // the same over each row of the last axis; 0: 10 x relative_l2, relative to the largest row norm
};

// Compares shape, positions of inf and nan, relative L2 over the whole and its worst row; a failure names the first bad
// coordinate and both values.
::testing::AssertionResult matches(const at::Tensor& actual, const at::Tensor& expected, Tolerance tolerance = {});

// ||a - b|| / ||b|| in float64.
double relative_l2(const at::Tensor& actual, const at::Tensor& expected);

// Peak signal-to-noise ratio of uint8 frames in dB; infinity when equal.
double psnr_db(const at::Tensor& actual, const at::Tensor& expected);

struct GoldenSummary {
  double mean = 0;
  double rms = 0;
  std::vector<double> elements;  // [0, 1, 2, 3, n/3, n/2, 2n/3, n-1], or just the leading ones given
};

// `tolerance` is absolute for mean and elements and relative for rms.
::testing::AssertionResult matches_summary(const at::Tensor& actual, const GoldenSummary& golden,
                                           double tolerance = 1e-5);

// A file below tests/goldens.
std::string golden_path(const std::string& relative);

}  // namespace strobe::test
