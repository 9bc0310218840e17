// strobe completion: a script for a shell, from the tables of commands and methods.
#include <fmt/ranges.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "attention/pattern.h"
#include "core/error.h"
#include "core/nearest.h"
#include "tools/app.h"
#include "tools/commands.h"

namespace strobe::tools {
namespace {

using config::KeySpec;
using config::KeyType;

// Every flag of a command, help and configuration included.
std::vector<std::string> flags_of(const CommandSpec& spec) {
  std::vector<std::string> names = {"-h", "--help"};
  for (const KeySpec& key : spec.keys.keys()) {
    for (const std::string& flag : config::flag_names(key)) names.push_back(flag);
  }
  if (spec.has_config) names.insert(names.end(), {"--config", "--set"});
  return names;
}

// Names one level below `group`; "" is the program itself.
std::vector<std::string> commands_below(const std::string& group) {
  std::vector<std::string> names;
  const std::string prefix = group.empty() ? "" : group + " ";
  for (const CommandSpec& spec : commands()) {
    if (!spec.name.starts_with(prefix) || spec.name == group) continue;
    const std::string rest = spec.name.substr(prefix.size());
    if (rest.find(' ') == std::string::npos) names.push_back(rest);
  }
  return names;
}

// Methods, and each with its presets: "radial radial:preset=wan_14b ...".
std::vector<std::string> attention_words() {
  std::vector<std::string> words;
  for (const attention::PatternInfo& info : attention::pattern_infos()) {
    words.push_back(info.name);
    for (const attention::PatternPreset& preset : info.presets) words.push_back(info.name + ":preset=" + preset.name);
  }
  return words;
}

// What a flag takes, as far as there is a list of it.
std::vector<std::string> values_of(const KeySpec& key) {
  return key.takes_method_map ? attention_words() : key.choices;
}

// What may stand behind a command, but for files.
std::vector<std::string> words_behind(const CommandSpec& spec) {
  if (spec.name == "completion") return {"bash", "zsh"};
  if (spec.name == "pattern list") return attention::pattern_names();
  return commands_below(spec.name);
}

// case branches "generate --scheduler) words" for flags with choices, and one list of the flags that take no path.
std::string bash_values(const CommandSpec& spec) {
  std::string text;
  for (const KeySpec& key : spec.keys.keys()) {
    if (key.flags.empty() || key.type == KeyType::kBoolean) continue;
    std::vector<std::string> patterns;
    for (const std::string& flag : config::flag_names(key)) patterns.push_back(fmt::format("'{} {}'", spec.name, flag));
    if (const auto values = values_of(key); !values.empty()) {
      text += fmt::format("    {}) words='{}'; kind=words ;;\n", fmt::join(patterns, "|"), fmt::join(values, " "));
    } else {
      const bool is_path = key.type == KeyType::kPath || key.name == "lora";
      text += fmt::format("    {}) kind={} ;;\n", fmt::join(patterns, "|"), is_path ? "files" : "none");
    }
  }
  if (spec.has_config) {
    text += fmt::format("    '{} --config') kind=files ;;\n    '{} --set') kind=none ;;\n", spec.name, spec.name);
  }
  return text;
}

std::string bash_script() {
  std::string values, flags;
  for (const CommandSpec& spec : commands()) {
    values += bash_values(spec);
    const std::vector<std::string> words = words_behind(spec);
    flags += fmt::format("    '{}') flags='{}'; words='{}' ;;\n", spec.name, fmt::join(flags_of(spec), " "),
                         fmt::join(words, " "));
  }
  return fmt::format(
      R"(# bash completion of strobe
_strobe() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="" value command="" kind="" words="" flags="" i
  # bash cuts --flag=value and method:key=value at '=' and ':'; the last piece may be yet to be begun.
  value="$current"
  for (( i = COMP_CWORD; i > 1; )); do
    [[ "${{COMP_WORDS[i]}}" == [:=] || "${{COMP_WORDS[i - 1]}}" == [:=] ]] || break
    (( --i ))
    value="${{COMP_WORDS[i]}}$value"
  done
  (( i > 0 )) && previous="${{COMP_WORDS[i - 1]}}"
  if [[ "$value" == --*=* ]]; then
    previous="${{value%%=*}}"
    value="${{value#*=}}"
  fi
  [[ "$current" == [:=] ]] && current=""
  for (( i = 1; i < COMP_CWORD; ++i )); do
    [[ "${{COMP_WORDS[i]}}" == -* ]] && break
    case "${{command:+$command }}${{COMP_WORDS[i]}}" in
      {names}) command="${{command:+$command }}${{COMP_WORDS[i]}}" ;;
      *) break ;;
    esac
  done
  case "$command $previous" in
{values}  esac
  case "$kind" in
    words)
      COMPREPLY=( $(compgen -W "$words" -- "$value") )
      COMPREPLY=( "${{COMPREPLY[@]#"${{value%"$current"}}"}}" )
      return ;;
    files) compopt -o filenames; COMPREPLY=( $(compgen -f -- "$current") ); return ;;
    none) COMPREPLY=(); return ;;
  esac
  case "$command" in
    '') flags='-h --help --version'; words='{top}' ;;
{flags}  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=( $(compgen -W "$flags" -- "$current") )
  elif [[ -n "$words" ]]; then
    COMPREPLY=( $(compgen -W "$words" -- "$current") )
  else
    compopt -o filenames
    COMPREPLY=( $(compgen -f -- "$current") )
  fi
}}
complete -F _strobe strobe
)",
      fmt::arg("names",
               [] {
                 std::vector<std::string> names;
                 for (const CommandSpec& spec : commands()) names.push_back("'" + spec.name + "'");
                 return fmt::format("{}", fmt::join(names, "|"));
               }()),
      fmt::arg("values", values), fmt::arg("top", fmt::format("{}", fmt::join(commands_below(""), " "))),
      fmt::arg("flags", flags));
}

// For zsh's _arguments: brackets, colons and quotes mean something there.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

std::string zsh_action(const KeySpec& key) {
  if (const auto values = values_of(key); !values.empty()) {
    return fmt::format(":{}:({})", key.name, zsh_text(fmt::format("{}", fmt::join(values, " "))));
  }
  const bool is_path = key.type == KeyType::kPath || key.name == "lora";
  return fmt::format(":{}:{}", key.name, is_path ? "_files" : " ");
}

std::string zsh_options(const CommandSpec& spec) {
  std::string text;
  for (const KeySpec& key : spec.keys.keys()) {
    for (const std::string& flag : config::flag_names(key)) {
      const bool is_boolean = key.type == KeyType::kBoolean;
      // "--flag=": the value may also stand in the next word.
      const bool takes_equals = !is_boolean && flag.starts_with("--");
      text += fmt::format("        '{}{}{}[{}]{}' \\\n", key.is_list ? "*" : "", flag, takes_equals ? "=" : "",
                          zsh_text(key.sentence), is_boolean ? "" : zsh_action(key));
    }
  }
  if (spec.has_config)
    text += "        '--config=[run file]:file:_files' \\\n        '*--set=[KEY=VALUE]:setting: ' \\\n";
  return text + "        '(-h --help)'{-h,--help}'[this text]' \\\n";
}

std::string zsh_branch(const CommandSpec& spec) {
  const std::vector<std::string> below = words_behind(spec);
  const std::string rest =
      below.empty() ? "'*:file:_files'" : fmt::format("'1:word:({})' '*:file:_files'", fmt::join(below, " "));
  return fmt::format("    '{}')\n      _arguments -s \\\n{}        {} ;;\n", spec.name, zsh_options(spec), rest);
}

std::string zsh_script() {
  std::string described, branches;
  for (const CommandSpec& spec : commands()) {
    if (spec.name.find(' ') == std::string::npos) {
      described += fmt::format("    '{}:{}'\n", spec.name, zsh_text(spec.summary));
    }
    branches += zsh_branch(spec);
  }
  std::vector<std::string> nested;
  for (const CommandSpec& spec : commands()) {
    if (spec.name.find(' ') != std::string::npos) nested.push_back("'" + spec.name + "'");
  }
  return fmt::format(R"(#compdef strobe
_strobe() {{
  local -a commands=(
{described}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    _arguments '--version[versions]' '(-h --help)'{{-h,--help}}'[this text]'
    return
  fi
  local command="$words[2]"
  (( CURRENT -= 1 ))
  shift words
  if (( CURRENT > 2 )); then
    case "$command $words[2]" in
      {nested}) command="$command $words[2]"; (( CURRENT -= 1 )); shift words ;;
    esac
  fi
  case "$command" in
{branches}  esac
}}
if [[ "$funcstack[1]" == _strobe ]]; then _strobe "$@"; else compdef _strobe strobe; fi
)",
                     fmt::arg("described", described), fmt::arg("nested", fmt::format("{}", fmt::join(nested, "|"))),
                     fmt::arg("branches", branches));
}

}  // namespace

int run_completion(const Invocation& invocation) {
  const std::string shell = invocation.positional("SHELL");
  if (shell != "bash" && shell != "zsh") throw ConfigError(unknown_name_message("shell", shell, {"bash", "zsh"}));
  std::fputs((shell == "bash" ? bash_script() : zsh_script()).c_str(), stdout);
  return 0;
}

}  // namespace strobe::tools
