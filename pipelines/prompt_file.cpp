#include "pipelines/prompt_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "config/compose.h"
#include "config/yaml_loader.h"
#include "core/error.h"
#include "core/text_file.h"
#include "pipelines/csv_reader.h"
#include "pipelines/json_places.h"
#include "pipelines/prompt_flags.h"
#include "pipelines/prompt_overrides.h"

namespace strobe::pipelines {
namespace {

using config::KeySpec;
using config::KeyTable;

constexpr uintmax_t kMaxFileBytes = uintmax_t{64} << 20;
constexpr size_t kMaxPrompts = 1000000;  // each takes some hundred bytes

struct Source {
  std::string_view text;
  const std::string& file;
  const KeyTable& keys;
};

// Adds a line, reads it by `read(line)`, keeps its message if that fails.
template <class Read>
void add_line(std::vector<PromptLine>& lines, const Source& source, std::string place, Read&& read) {
  if (lines.size() == kMaxPrompts) {
    throw ConfigError(fmt::format("{}: more than {} prompts; split the file", source.file, kMaxPrompts));
  }
  PromptLine& line = lines.emplace_back();
  line.place = std::move(place);
  try {
    read(line);
  } catch (const ConfigError& error) {
    line.error = error.what();
  }
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// `visit(line without its end, number)` for each line that is not blank.
template <class Visit>
void for_each_line(const Source& source, Visit&& visit) {
  size_t number = 1;
  for (size_t begin = 0; begin < source.text.size(); ++number) {
    const size_t end = std::min(source.text.find('\n', begin), source.text.size());
    std::string_view line = source.text.substr(begin, end - begin);
    while (line.ends_with('\r')) line.remove_suffix(1);
    if (!trim(line).empty()) visit(line, number);
    begin = end + 1;
  }
}

// A map of keys as a user writes them, at any depth that dotted keys have.
class MapReader {
 public:
  MapReader(const KeyTable& keys, const ConfigNode& entry)
      : keys_(keys), is_foreign_(entry.find("prompt_en") != nullptr) {}

  void read(const ConfigNode& entry, PromptLine& line) {
    for (const char* name : {"prompt_en", "prompt"}) {
      const ConfigNode* text = entry.find(name);
      if (text && text->is_string()) line.text = text->as_string();
    }
    PromptOverrides overrides(keys_);
    add_map(entry, "", overrides);
    overrides.finish(line);
  }

 private:
  bool is_group(const std::string& path) const {
    std::string prefix = path + '.';
    std::replace(prefix.begin(), prefix.end(), '-', '_');
    return std::any_of(keys_.keys().begin(), keys_.keys().end(),
                       [&](const KeySpec& key) { return key.name.starts_with(prefix); });
  }

  void add_map(const ConfigNode& map, const std::string& prefix, PromptOverrides& overrides) const {
    for (const auto& [name, value] : map.as_map()) {
      const std::string path = prefix + name;
      const bool is_vbench = path == "prompt_en";
      const KeySpec* key = is_vbench ? keys_.find("prompt") : path.starts_with('-') ? nullptr : keys_.find_alias(path);
      if (key) {
        ConfigNode named = value;
        named.set_place(value.origin(), path);
        overrides.add(*key, std::move(named), path);
      } else if (value.is_map() && is_group(path)) {
        add_map(value, path + ".", overrides);
      } else if (!is_foreign_) {
        throw ConfigError(fmt::format("{}: {}", value.origin(), keys_.unknown_key_message(path)));
      }
    }
  }

  const KeyTable& keys_;
  bool is_foreign_;  // another program's record
};

// One entry of a list, or a line of .jsonl.
void read_entry(const ConfigNode& entry, const KeyTable& keys, PromptLine& line) {
  if (entry.is_map()) {
    MapReader(keys, entry).read(entry, line);
    return;
  }
  if (!entry.is_string() && !entry.is_null()) {
    throw ConfigError(fmt::format("{}: expected a prompt or a map with `prompt`, got {}{}", entry.origin(),
                                  entry.describe(), entry.is_list() ? "" : "; put text in quotes"));
  }
  PromptOverrides overrides(keys);
  ConfigNode prompt = entry;
  prompt.set_place(entry.origin(), "prompt");
  overrides.add(*keys.find("prompt"), std::move(prompt), "prompt");
  overrides.finish(line);
}

std::vector<PromptLine> parse_txt(const Source& source) {
  std::vector<PromptLine> lines;
  for_each_line(source, [&](std::string_view text, size_t number) {
    if (trim(text).starts_with('#')) return;
    const std::string place = fmt::format("{}:{}", source.file, number);
    add_line(lines, source, place, [&](PromptLine& line) { read_text_line({text, place}, source.keys, line); });
  });
  return lines;
}

std::vector<PromptLine> parse_jsonl(const Source& source) {
  std::vector<PromptLine> lines;
  for_each_line(source, [&](std::string_view text, size_t number) {
    add_line(lines, source, fmt::format("{}:{}", source.file, number),
             [&](PromptLine& line) { read_entry(parse_json_line(text, source.file, number), source.keys, line); });
  });
  return lines;
}

std::vector<const KeySpec*> read_header(const CsvRow& header, const Source& source) {
  if (!header.error.empty()) throw ConfigError(header.error);
  if (header.num_cells > kMaxCsvCells) {
    throw ConfigError(fmt::format("{}: {} columns, at most {} are read", header.place, header.num_cells, kMaxCsvCells));
  }
  std::vector<const KeySpec*> columns;
  for (const CsvCell& cell : header.cells) {
    const std::string name(trim(cell.text));
    if (name.empty()) throw ConfigError(fmt::format("{}: a column without a name", cell.place));
    const KeySpec* key = name.starts_with('-') ? nullptr : source.keys.find_alias(name);
    if (!key) throw ConfigError(fmt::format("{}: {}", cell.place, source.keys.unknown_key_message(name)));
    check_per_job(*key, name, cell.place);
    if (std::find(columns.begin(), columns.end(), key) != columns.end()) {
      throw ConfigError(fmt::format("{}: a second column for {}", cell.place, key->name));
    }
    columns.push_back(key);
  }
  const bool has_prompt =
      std::any_of(columns.begin(), columns.end(), [](const KeySpec* key) { return key->name == "prompt"; });
  if (!has_prompt) throw ConfigError(fmt::format("{}: no column is named prompt", header.place));
  return columns;
}

void read_row(const CsvRow& row, const std::vector<const KeySpec*>& columns, const KeyTable& keys, PromptLine& line) {
  if (!row.error.empty()) throw ConfigError(row.error);
  if (row.num_cells != columns.size()) {
    throw ConfigError(
        fmt::format("{}: expected {} cells as in the first row, got {}", row.place, columns.size(), row.num_cells));
  }
  PromptOverrides overrides(keys);
  for (size_t i = 0; i < columns.size(); ++i) {
    const CsvCell& cell = row.cells[i];
    if (columns[i]->name == "prompt") line.text = cell.text;
    const bool is_text = columns[i]->type == config::KeyType::kText || columns[i]->type == config::KeyType::kPath;
    const std::string text(is_text ? std::string_view(cell.text) : trim(cell.text));
    if (text.empty()) continue;
    const ConfigNode value = keys.parse_value(*columns[i], text, cell.place);
    overrides.add(*columns[i], placed(value, cell.place, columns[i]->name), columns[i]->name);
  }
  if (line.text.empty()) throw ConfigError(fmt::format("{}: the prompt is empty", line.place));
  overrides.finish(line);
}

std::vector<PromptLine> parse_csv(const Source& source) {
  CsvReader reader(source.text, source.file);
  CsvRow row;
  if (!reader.next(row)) return {};
  const std::vector<const KeySpec*> columns = read_header(row, source);
  std::vector<PromptLine> lines;
  while (reader.next(row)) {
    add_line(lines, source, row.place, [&](PromptLine& line) { read_row(row, columns, source.keys, line); });
  }
  return lines;
}

// The list of entries, which may be the value of `prompts` in a map.
const ConfigNode& list_of_prompts(const ConfigNode& root, const std::string& file) {
  if (root.is_list()) return root;
  const std::string expected = "expected a list of prompts, or a map with the list as `prompts`";
  if (!root.is_map()) {
    const std::string got = root.is_string() ? "text" : root.describe();
    throw ConfigError(fmt::format("{}: {}, got {}", root.origin(), expected, got));
  }
  for (const auto& [name, value] : root.as_map()) {
    if (name == "prompts") continue;
    if (name != "schema") {
      throw ConfigError(fmt::format("{}: unknown key '{}'; {}", value.origin(), excerpt(name), expected));
    }
    if (!value.is_integer() || value.as_integer() != config::kSchema) {
      const std::string got =
          value.is_string() ? fmt::format("the text '{}'", excerpt(value.as_string())) : value.describe();
      throw ConfigError(
          fmt::format("{}: schema: expected {}, what this build reads, got {}", value.origin(), config::kSchema, got));
    }
  }
  const ConfigNode* list = root.find("prompts");
  if (!list) throw ConfigError(fmt::format("{}: {}", file, expected));
  if (!list->is_list()) throw ConfigError(fmt::format("{}: prompts: expected a list", list->origin()));
  return *list;
}

std::vector<PromptLine> read_tree(const ConfigNode& root, const Source& source) {
  if (root.is_null()) return {};
  std::vector<PromptLine> lines;
  for (const ConfigNode& entry : list_of_prompts(root, source.file).as_list()) {
    add_line(lines, source, entry.origin(), [&](PromptLine& line) { read_entry(entry, source.keys, line); });
  }
  return lines;
}

std::vector<PromptLine> parse_yaml(const Source& source) {
  return read_tree(config::parse_yaml(source.text, source.file), source);
}

std::vector<PromptLine> parse_json(const Source& source) {
  if (trim(source.text).empty()) return {};
  return read_tree(parse_placed_json(source.text, source.file), source);
}

struct Format {
  std::string_view name;
  std::vector<PromptLine> (*parse)(const Source&);
};

constexpr std::array<Format, 5> kFormats = {
    {{"txt", parse_txt}, {"jsonl", parse_jsonl}, {"csv", parse_csv}, {"yaml", parse_yaml}, {"json", parse_json}}};

[[noreturn]] void fail_format(const std::string& file) {
  throw ConfigError(
      fmt::format("{}: expected a prompt file that ends in .txt, .jsonl, .csv, .yaml, .yml or .json", file));
}

}  // namespace

std::vector<PromptLine> parse_prompts(std::string_view text, const std::string& format, const std::string& file,
                                      const KeyTable& keys) {
  STROBE_CHECK(keys.find("prompt"), "keys: the key `prompt` is missing");
  const auto* const found =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const Format& one) { return one.name == format; });
  if (found == kFormats.end()) fail_format(file);
  text = without_byte_order_mark(text);
  check_text(text, file);
  std::vector<PromptLine> lines = found->parse({text, file, keys});
  if (lines.empty()) throw ConfigError(fmt::format("{}: holds no prompt", file));
  return lines;
}

std::vector<PromptLine> load_prompt_file(const std::filesystem::path& path, const KeyTable& keys) {
  std::string format = path.extension().string();
  std::transform(format.begin(), format.end(), format.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  format = format == ".yml" ? "yaml" : format.empty() ? format : format.substr(1);
  const bool is_known =
      std::any_of(kFormats.begin(), kFormats.end(), [&](const Format& one) { return one.name == format; });
  std::error_code error;
  if (!is_known && std::filesystem::exists(path, error) && !std::filesystem::is_directory(path, error)) {
    fail_format(path.string());
  }
  return parse_prompts(read_text_file(path, kMaxFileBytes), format, path.string(), keys);
}

}  // namespace strobe::pipelines
