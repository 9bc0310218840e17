// The plain kernel: a list of its own, behind LibTorch's dense one, which is far faster where none of ours can run.
#include "core/torch.h"
// After the precompiled header.
#include "attention/backends/cpu_kernels.h"

namespace strobe::attention {

BackendList make_cpu_reference_backends() { return make_cpu_kernels(/*is_reference=*/true); }

}  // namespace strobe::attention
