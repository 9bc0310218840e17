// strobe: answers what needs no tensors (help, mistakes, config) within milliseconds, and becomes
// strobe-engine for everything else. Loading LibTorch alone takes some 0.4 s.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "tools/cmd_config.h"

namespace strobe::tools {
namespace {

int become_engine(char** argv) {
  std::error_code error;
  std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) self = argv[0];
  const std::filesystem::path engine = self.parent_path() / "strobe-engine";
  execv(engine.c_str(), argv);
  throw IoError(
      fmt::format("{}: {}; the program strobe-engine belongs beside strobe", engine.string(), std::strerror(errno)));
}

int run(int argc, char** argv) {
  const Parsed parsed = parse_command_line(argc, argv);
  if (parsed.wants_version) return become_engine(argv);
  if (!parsed.invocation) return parsed.exit_code;
  const Invocation& invocation = *parsed.invocation;
  const std::string& name = invocation.command->name;
  if (name == "config show") return run_config_show(invocation);
  if (name == "config explain") return run_config_explain(invocation);
  if (name == "config schema") return run_config_schema(invocation);
  return become_engine(argv);
}

}  // namespace
}  // namespace strobe::tools

int main(int argc, char** argv) { return strobe::tools::run_program(strobe::tools::run, argc, argv); }
