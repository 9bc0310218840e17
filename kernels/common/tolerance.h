// How far a kernel may be from the float64 reference on the same inputs, and why.
#pragma once

#include "kernels/common/types.h"

namespace strobe::kernels {

struct KernelTolerance {
  double call = 0;  // ||out - ref|| / ||ref|| over the call
  double row = 0;   // the same over a row, the worst of the call: one bad tile must not hide in the mean
  double lse = 0;   // |lse - ref| / max(1, |ref| / 8): a float near 100 has steps of 8e-6
};

// Typical fp32: 2e-6, from a polynomial of degree 5 and sums of some thousand terms. Rounding of p, q and k to bf16
// gives 2e-3 a row.
inline KernelTolerance kernel_tolerance(ScalarType dtype) {
  return dtype == ScalarType::kFloat32 ? KernelTolerance{1e-5, 5e-5, 1e-5} : KernelTolerance{3e-3, 8e-3, 2e-3};
}

}  // namespace strobe::kernels
