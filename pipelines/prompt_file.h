// A file of prompts, each with the settings that hold for it alone.
//
// .txt      One prompt a line. Blank lines and lines that begin with # are skipped. Flags behind the prompt are that
//           line's: `a cat on a mat --seed 7 --size=832x480 --negative-prompt "two words"`. They begin at the first word
//           that is `--` and a letter, or exactly a short flag such as `-s`; a word is what stands behind white space
//           (spaces, tabs) or begins the line. To keep such a word in the prompt, or a leading #, put the whole prompt
//           in double quotes, with \" and \\ inside: `"a sign that says --stop" --seed 7`. A line that begins with a
//           quote but goes on with text behind the closing one is taken as it stands. Values are quoted as in a shell.
// .jsonl    One object a line: `prompt` and keys named as the flags, with hyphens or underscores. A string is a prompt.
// .csv      RFC 4180 with a row of names; an empty cell is "not given", quoted or not.
// .yaml     A list of prompts (text, or a map with `prompt` and keys), or a map with the list as `prompts`, `schema: 1`.
// .json     The same in JSON. An object with `prompt_en`, as VBench has them, may hold anything else beside known keys.
// All       A value of null is "not given". Prompts are kept as written; only lines of a .txt are trimmed.
// Errors    What makes the file as a whole useless is a ConfigError; a bad line keeps its message, so that the others
//           can be used.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/key_table.h"
#include "core/config_node.h"

namespace strobe::pipelines {

struct PromptLine {
  std::string text;                          // the prompt; with an error, as far as it was read
  ConfigNode overrides = ConfigNode::map();  // canonical, keys that may differ by clip, without `prompt`
  std::string place;                         // "prompts.txt:3"; with a column where a line may hold several
  std::string error;                         // empty, or the whole message of why this line cannot be used
};

// `keys` must have the key `prompt`. ConfigError for a file that is missing, a folder, of another kind, not UTF-8, over
// 64 MiB or a million prompts, malformed, or without any prompt.
std::vector<PromptLine> load_prompt_file(const std::filesystem::path& path, const config::KeyTable& keys);

// The same from text; `format` is txt, jsonl, csv, yaml or json, `file` the name for messages.
std::vector<PromptLine> parse_prompts(std::string_view text, const std::string& format, const std::string& file,
                                      const config::KeyTable& keys);

}  // namespace strobe::pipelines
