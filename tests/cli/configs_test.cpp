// Every run file of configs/runs with the command that its first line names.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <regex>

#include "tests/cli/cli_fixture.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct CliConfigs : test::Cli {};

std::vector<fs::path> files_of(const std::string& kind) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(std::string(STROBE_SOURCE_DIR) + "/configs/" + kind)) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// "generate" of "# ...: strobe generate --config configs/runs/example.yaml"; empty if the line is no such one.
std::string command_of(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  static const std::regex form(R"(^# (.*: )?strobe (\w+) --config (\S+)$)");
  std::smatch match;
  const bool fits = std::regex_match(line, match, form) && match[3] == "configs/runs/" + file.filename().string();
  return fits ? match[2].str() : "";
}

TEST_F(CliConfigs, of_runs_all_work_with_the_command_that_they_name) {
  const std::vector<fs::path> files = files_of("runs");
  ASSERT_FALSE(files.empty());
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.filename().string());
    const std::string command = command_of(file);
    std::vector<std::string> arguments = {command, "--config", file.string()};
    if (command == "generate") {
      arguments.push_back("--dry-run");
    } else if (command != "plan") {
      ADD_FAILURE() << "the first line names '" << command << "', which this test cannot run";
      continue;
    }
    const auto run = strobe(arguments);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    const auto show = strobe({"config", "show", "--config", file.string()});
    EXPECT_EQ(show.exit_code, 0) << show.err;
    EXPECT_THAT(show.out, HasSubstr(file.filename().string() + ":"));  // a value with its origin
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(CliConfigs, of_attention_all_are_methods_that_a_run_file_may_name) {
  fs::create_directory_symlink(std::string(STROBE_SOURCE_DIR) + "/configs", folder / "configs");
  const std::vector<fs::path> files = files_of("attention");
  ASSERT_FALSE(files.empty());
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.filename().string());
    folder.write("run.yaml", "schema: 1\nmodel: wan_1_3b\nattention: " + file.stem().string() + "\n");
    const auto show = strobe({"config", "show", "run.yaml"});
    EXPECT_EQ(show.exit_code, 0) << show.err;
    EXPECT_THAT(show.out, HasSubstr("configs/attention/" + file.filename().string() + ":"));
    // The methods and their options are read by the plan.
    const auto plan = strobe({"plan", "--config", "run.yaml"});
    EXPECT_EQ(plan.exit_code, 0) << plan.err;
    EXPECT_THAT(plan.out, HasSubstr("of steps, layers and heads"));
  }
}

}  // namespace
}  // namespace strobe
