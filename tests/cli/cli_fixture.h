// The program in an empty folder of its own.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/process.h"
#include "tests/support/temp_folder.h"

namespace strobe::test {

struct Cli : ::testing::Test {
  TempFolder folder;

  ProcessResult strobe(const std::vector<std::string>& arguments, ProcessOptions options = {}) const {
    std::vector<std::string> command = {STROBE_BINARY};
    command.insert(command.end(), arguments.begin(), arguments.end());
    options.folder = folder.path();
    options.environment.emplace("XDG_CACHE_HOME", ::testing::TempDir() + "strobe_cli_cache");
    return run_process(command, options);
  }
  // A clip of a second or less with the default model.
  ProcessResult generate(const std::vector<std::string>& more, const ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = {"generate", "-p", "a red circle", "--num-frames", "5", "--size", "64x48",
                                          "--steps",  "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments, options);
  }
  // Files that were begun under a temporary name and never published.
  bool has_leftovers() const {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path())) {
      if (entry.path().string().find(".part") != std::string::npos) return true;
    }
    return false;
  }
};

}  // namespace strobe::test
