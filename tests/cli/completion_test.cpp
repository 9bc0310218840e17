// The completion scripts inside the shells that they are for.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kBash = "/bin/bash";
constexpr const char* kZsh = "/bin/zsh";

std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

struct Completion : test::Cli {
  std::string run_shell(const std::vector<std::string>& command) const {
    const auto result = test::run_process(command, {.environment = {{"STROBE", STROBE_BINARY}, {"TERM", "vt100"}},
                                                    .folder = folder.path(),
                                                    .timeout_seconds = 60});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return without_last_newline(result.out);
  }

  // What bash offers, separated by spaces. `words` are what readline would have made of the line, quoted for the shell.
  std::string bash_offers(const std::string& words) const {
    static const std::string script = strobe({"completion", "bash"}).out;
    folder.write("completion.bash", script);
    return run_shell({kBash, "--norc", "-c", R"(source ./completion.bash
set -- )" + words + R"(
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_strobe 2>/dev/null  # compopt works in a real completion alone
echo "${COMPREPLY[*]}")"});
  }

  // What zsh makes of each line when tab is pressed behind it, in a terminal of its own. `set_up` makes the completion
  // known.
  std::string zsh_completes(const std::vector<std::string>& lines, const std::string& set_up) const {
    folder.write("set_up.zsh", "PS1= PS2= RPS1=\nbindkey -e\nautoload -Uz compinit\n" + set_up + R"(
show() { zle -I; print -r -- "LINE<$BUFFER>"; BUFFER= }
zle -N show
bindkey '^X' show
print READY
)");
    std::vector<std::string> command = {kZsh, "-f", "-c", R"(zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner 'source ./set_up.zsh'
zpty -r inner text '*READY*'
for line; do
  zpty -w -n inner "$line"$'\t\x18'
  zpty -r inner text '*LINE<*>*'
  text=${text##*LINE<}
  print -r -- "${text%%>*}"
done
zpty -d inner)",
                                        "zsh"};
    command.insert(command.end(), lines.begin(), lines.end());
    return run_shell(command);
  }
};

TEST_F(Completion, of_bash_offers_commands_flags_and_choices) {
  if (!fs::exists(kBash)) GTEST_SKIP() << "no " << kBash;
  EXPECT_THAT(bash_offers("strobe ''"), AllOf(HasSubstr("generate"), HasSubstr("models"), Not(HasSubstr("--"))));
  EXPECT_EQ(bash_offers("strobe ge"), "generate");
  EXPECT_EQ(bash_offers("strobe --ver"), "--version");
  EXPECT_EQ(bash_offers("strobe models ''"), "make-random sprites-clips sprites-check");
  EXPECT_EQ(bash_offers("strobe config ''"), "show explain schema");
  EXPECT_EQ(bash_offers("strobe completion z"), "zsh");
  EXPECT_EQ(bash_offers("strobe generate --num-inf"), "--num-inference-steps");
  EXPECT_EQ(bash_offers("strobe generate -p 'a cat' --sched"), "--scheduler");
  EXPECT_EQ(bash_offers("strobe generate --scheduler ''"), "unipc euler");
  EXPECT_EQ(bash_offers("strobe generate --scheduler e"), "euler");
  EXPECT_EQ(bash_offers("strobe generate --scheduler ="), "unipc euler");
  EXPECT_EQ(bash_offers("strobe generate --scheduler = e"), "euler");
  EXPECT_EQ(bash_offers("strobe models make-random m --dtype ''"), "fp32 bf16 fp16");
  EXPECT_EQ(bash_offers("strobe generate --steps ''"), "");
}

TEST_F(Completion, of_bash_offers_methods_and_their_presets) {
  if (!fs::exists(kBash)) GTEST_SKIP() << "no " << kBash;
  EXPECT_THAT(bash_offers("strobe generate --attention ''"), AllOf(HasSubstr("dense radial radial:preset=wan_14b "),
                                                                   HasSubstr("window"), HasSubstr("sparsed:preset=")));
  EXPECT_EQ(bash_offers("strobe plan --attention win"), "window");
  // bash cuts the word at ':' and '=' and replaces the last piece alone.
  EXPECT_EQ(bash_offers("strobe generate --attention window --attention radial : preset = wan22"), "wan22_a14b");
  EXPECT_EQ(bash_offers("strobe generate --attention = radial : preset = wan22"), "wan22_a14b");
  EXPECT_EQ(bash_offers("strobe bench attention --attention radial : preset=moch"),
            "preset=mochi_1 preset=mochi_1_long");
  EXPECT_EQ(bash_offers("strobe pattern list ada"), "adaspa");
}

TEST_F(Completion, of_bash_offers_files_where_a_path_is_due) {
  if (!fs::exists(kBash)) GTEST_SKIP() << "no " << kBash;
  folder.write("style one.safetensors", "");
  folder.write("run.yaml", "");
  EXPECT_EQ(bash_offers("strobe generate --lora st"), "style one.safetensors");
  EXPECT_EQ(bash_offers("strobe generate --config r"), "run.yaml");
  EXPECT_EQ(bash_offers("strobe decode st"), "style one.safetensors");
}

TEST_F(Completion, of_zsh_is_known_to_its_completion_system) {
  if (!fs::exists(kZsh)) GTEST_SKIP() << "no " << kZsh;
  EXPECT_EQ(run_shell({kZsh, "-f", "-c", R"(autoload -Uz compinit; compinit -u -D
source <("$STROBE" completion zsh)
print -r -- $_comps[strobe])"}),
            "_strobe");
}

TEST_F(Completion, of_zsh_completes_commands_flags_and_choices) {
  if (!fs::exists(kZsh)) GTEST_SKIP() << "no " << kZsh;
  const std::string sourced = R"(compinit -u -D; source <("$STROBE" completion zsh))";
  folder.write("prompts.txt", "");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"strobe gen", "strobe generate "},
      {"strobe config ex", "strobe config explain "},
      {"strobe models make-random --ze", "strobe models make-random --zeros "},
      {"strobe generate --scheduler eu", "strobe generate --scheduler euler "},
      {"strobe generate --scheduler=eu", "strobe generate --scheduler=euler "},
      {"strobe generate --attention win", "strobe generate --attention window "},
      {"strobe generate --attention=radial:preset=wan22_", "strobe generate --attention=radial:preset=wan22_a14b "},
      {"strobe pattern list ada", "strobe pattern list adaspa "},
      {"strobe generate -p x --dry", "strobe generate -p x --dry-run "},
      {"strobe generate -f pro", "strobe generate -f prompts.txt "}};
  std::vector<std::string> lines;
  std::string expected;
  for (const auto& [line, completed] : cases) {
    lines.push_back(line);
    expected += (expected.empty() ? "" : "\n") + completed;
  }
  EXPECT_EQ(zsh_completes(lines, sourced), expected);
}

TEST_F(Completion, of_zsh_also_works_as_a_file_of_its_search_path) {
  if (!fs::exists(kZsh)) GTEST_SKIP() << "no " << kZsh;
  fs::create_directory(folder / "functions");
  const std::string installed = R"("$STROBE" completion zsh > functions/_strobe
fpath=($PWD/functions $fpath); compinit -u -D)";
  EXPECT_EQ(zsh_completes({"strobe generate --scheduler eu"}, installed), "strobe generate --scheduler euler ");
}

}  // namespace
}  // namespace strobe
