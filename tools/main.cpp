// strobe-engine: runs one command, turns every error into one message and its exit code. `strobe` starts it.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "tools/app.h"

namespace strobe::tools {

namespace {

struct Runner {
  const char* command;
  int (*run)(const Invocation& invocation);
};

constexpr Runner kRunners[] = {{"generate", run_generate},
                               {"decode", run_decode},
                               {"encode", run_encode},
                               {"replay", run_replay},
                               {"plan", run_plan},
                               {"models", run_models},
                               {"models make-random", run_make_random},
                               {"models sprites-clips", run_sprites_clips},
                               {"models sprites-check", run_sprites_check},
                               {"train", run_train},
                               {"bench attention", run_bench_attention},
                               {"pattern run", run_pattern_run},
                               {"pattern show", run_pattern_show},
                               {"pattern list", run_pattern_list},
                               {"completion", run_completion},
                               {"doctor", run_doctor}};

int run(int argc, char** argv) {
  const Parsed parsed = parse_command_line(argc, argv);
  if (parsed.wants_version) {
    std::fputs(version_text().c_str(), stdout);
    return 0;
  }
  if (!parsed.invocation) return parsed.exit_code;
  for (const Runner& runner : kRunners) {
    if (parsed.invocation->command->name == runner.command) return runner.run(*parsed.invocation);
  }
  throw ConfigError(fmt::format("{} is run by the program strobe", parsed.invocation->command->name));
}

// Video models make and drop tensors of tens of megabytes. glibc would learn to keep them on its heap, which then grows by
// fragments (a sixth of the VAE's peak, more with every frame); mapped blocks go back to the system at once, and huge
// pages make up for the page faults.
void set_up_memory() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);  // read by LibTorch before its first large tensor
}

}  // namespace
}  // namespace strobe::tools

int main(int argc, char** argv) {
  strobe::tools::set_up_memory();
  strobe::tools::install_signal_handlers();
  return strobe::tools::run_program(strobe::tools::run, argc, argv);
}
