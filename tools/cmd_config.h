// What `strobe` does itself, without LibTorch.
#pragma once

#include "tools/command_line.h"

namespace strobe::tools {

int run_config_show(const Invocation& invocation);
int run_config_explain(const Invocation& invocation);
int run_config_schema(const Invocation& invocation);

}  // namespace strobe::tools
