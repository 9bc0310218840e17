// Backends over the kernels of kernels/block_attention.
#pragma once

#include "attention/backend.h"

namespace strobe::attention {

// The plain reference kernel, or all others, best first.
BackendList make_cpu_kernels(bool is_reference);

}  // namespace strobe::attention
