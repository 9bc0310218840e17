#include "tests/fuzz/fuzz_targets.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "config/yaml_loader.h"
#include "core/error.h"
#include "core/text_file.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/text/spiece_model.h"
#include "pipelines/generate_keys.h"
#include "pipelines/prompt_file.h"
#include "weights/dtypes.h"
#include "weights/json.h"
#include "weights/safetensors_header.h"
#include "weights/torch_archive_layout.h"

namespace strobe::fuzz {
namespace {

// Not an exception: libFuzzer keeps the input only of a process that dies.
void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken contract: %s\n", what);
  std::abort();
}

// A message is shown as it is: short, and text.
void require_readable(const std::string& message) {
  require(message.size() < 2000, "a message of a bounded length");
  require(find_invalid_utf8(message) == std::string_view::npos, "a message in UTF-8");
}

bool is_same(const ConfigNode& a, const ConfigNode& b) {
  if (a.is_list() && b.is_list()) {
    return std::equal(a.as_list().begin(), a.as_list().end(), b.as_list().begin(), b.as_list().end(), is_same);
  }
  if (a.is_map() && b.is_map()) {
    return std::equal(a.as_map().begin(), a.as_map().end(), b.as_map().begin(), b.as_map().end(),
                      [](const auto& x, const auto& y) { return x.first == y.first && is_same(x.second, y.second); });
  }
  if (a.is_string() && b.is_string()) return a.as_string() == b.as_string();
  if (a.is_bool() && b.is_bool()) return a.as_bool() == b.as_bool();
  if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
  if (a.is_integer() || b.is_integer()) return false;
  if (a.is_number() && b.is_number()) {
    const double x = a.as_number(), y = b.as_number();
    return std::signbit(x) == std::signbit(y) && (x == y || (std::isnan(x) && std::isnan(y)));
  }
  return a.is_null() && b.is_null();
}

// "file:line..." with a line that the text has.
void require_place(const std::string& place, const std::string& file, std::string_view text) {
  require(place.starts_with(file + ":"), "a place begins with its file");
  const long line = std::strtol(place.c_str() + file.size() + 1, nullptr, 10);
  require(line >= 1 && line <= 1 + std::count(text.begin(), text.end(), '\n'), "a line that the file has");
}

void require_usable(const pipelines::PromptLine& line, const std::string& file, std::string_view text) {
  require_place(line.place, file, text);
  if (!line.error.empty()) {
    require_place(line.error, file, text);
    require_readable(line.error);
    require(line.overrides.as_map().empty(), "no settings of a line that is not used");
    return;
  }
  require(line.text.find_first_not_of(" \t\r\n") != std::string::npos, "a prompt that says something");
  require(find_invalid_utf8(line.text) == std::string::npos, "a prompt in UTF-8");
  require(find_control_character(line.text) == std::string::npos, "a prompt without control characters");
  require(is_same(pipelines::generate_keys().checked(line.overrides), line.overrides), "settings in canonical form");
  for (const auto& [name, value] : line.overrides.as_map()) {
    const config::KeySpec* key = pipelines::generate_keys().find(name);
    require(key && key->is_per_job && name != "prompt" && !value.is_null(), "keys of one clip, all given");
    require_place(value.origin(), file, text);
  }
}

}  // namespace

void drive_json(std::string_view bytes) {
  std::string first;
  try {
    first = weights::to_json(weights::parse_json(bytes, "fuzz.json"));
  } catch (const ConfigError&) {
    return;
  }
  require(weights::to_json(weights::parse_json(first, "fuzz.json")) == first, "JSON changed on its way out and in");
}

void drive_safetensors(std::string_view bytes) {
  if (bytes.size() > 8) drive_json(bytes.substr(8));
  weights::SafetensorsHeader header;
  try {
    header = weights::parse_safetensors_header(bytes, bytes.size(), "fuzz.safetensors");
  } catch (const WeightError&) {
    return;
  }
  uint64_t total = 0;
  const weights::SafetensorsEntry* previous = nullptr;
  for (const weights::SafetensorsEntry& entry : header.tensors) {
    require(!previous || previous->name < entry.name, "names sorted and unique");
    require(entry.begin >= 8 && entry.begin <= entry.end && entry.end <= bytes.size(), "data inside the file");
    const uint64_t element_bytes = weights::find_dtype(entry.dtype)->bytes;
    const auto numel = weights::checked_numel(entry.shape, element_bytes);
    require(numel && static_cast<uint64_t>(*numel) * element_bytes == entry.end - entry.begin, "bytes of the shape");
    total += entry.end - entry.begin;
    previous = &entry;
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  require(total == bytes.size() - 8 - length, "tensors cover the data");
}

void drive_torch_archive(std::string_view bytes) {
  std::vector<weights::ArchiveTensor> tensors;
  try {
    tensors = weights::parse_torch_archive(bytes, "fuzz.pth");
  } catch (const WeightError&) {
    return;
  }
  const weights::ArchiveTensor* previous = nullptr;
  for (const weights::ArchiveTensor& tensor : tensors) {
    require(!previous || previous->name < tensor.name, "names sorted and unique");
    const uint64_t element_bytes = weights::find_dtype(tensor.dtype)->bytes;
    require(tensor.shape.size() == tensor.strides.size(), "a stride for every axis");
    uint64_t last = 0;
    bool is_empty = false;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      is_empty |= tensor.shape[i] == 0;
      if (!is_empty) last += static_cast<uint64_t>((tensor.shape[i] - 1) * tensor.strides[i]);
    }
    require(is_empty || tensor.begin + (last + 1) * element_bytes <= bytes.size(), "elements inside the file");
    previous = &tensor;
  }
}

void drive_yaml(std::string_view bytes) {
  ConfigNode tree;
  try {
    tree = config::parse_yaml(bytes, "fuzz.yaml");
  } catch (const ConfigError& error) {
    require_readable(error.what());
    require_place(error.what(), "fuzz.yaml", bytes);
    return;
  }
  const std::string text = config::to_yaml(tree);
  require(text.find('\n') == std::string::npos, "one line of YAML");
  try {
    require(is_same(config::parse_yaml(text, "back.yaml"), tree), "YAML changed on its way out and in");
  } catch (const ConfigError& error) {
    require(false, error.what());
  }
}

void drive_prompt_file(std::string_view bytes) {
  static const std::string letters = "tlcyj";
  static const char* const formats[] = {"txt", "jsonl", "csv", "yaml", "json"};
  const size_t index = bytes.empty() ? std::string::npos : letters.find(bytes.front());
  if (index == std::string::npos) return;
  const std::string_view text = bytes.substr(1);
  const std::string file = "p";
  std::vector<pipelines::PromptLine> lines;
  try {
    lines = pipelines::parse_prompts(text, formats[index], file, pipelines::generate_keys());
  } catch (const ConfigError& error) {
    require(std::string_view(error.what()).starts_with("p:"), "a message begins with its file");
    require_readable(error.what());
    return;
  }
  require(!lines.empty(), "some prompt");
  const std::vector<pipelines::PromptLine> again =
      pipelines::parse_prompts(text, formats[index], file, pipelines::generate_keys());
  require(again.size() == lines.size(), "as many prompts the second time");
  for (size_t i = 0; i < lines.size(); ++i) {
    require_usable(lines[i], file, text);
    require(lines[i].text == again[i].text && lines[i].error == again[i].error && lines[i].place == again[i].place &&
                is_same(lines[i].overrides, again[i].overrides),
            "the same prompts the second time");
  }
}

void drive_tokenizer(std::string_view bytes) {
  constexpr int64_t kMaxTokens = 64;
  std::unique_ptr<models::Tokenizer> tokenizer;
  std::vector<std::string> texts = {"", "a cat,  B's\n", "\u2581\u00e9\ufb01 <pad></s><extra_id_0>\xff\xe2\x96",
                                    "aaaaaaaa  aa"};
  try {
    if (bytes.starts_with('{')) {
      tokenizer = models::parse_tokenizer_json(bytes, "fuzz.json");
    } else {
      const models::text::SpieceModel model = models::text::parse_spiece(bytes, "fuzz.model");
      const std::string written = models::text::serialize_spiece(model);
      const models::text::SpieceModel back = models::text::parse_spiece(written, "back.model");
      require(back.unknown_id == model.unknown_id && back.character_map == model.character_map &&
                  std::equal(back.pieces.begin(), back.pieces.end(), model.pieces.begin(), model.pieces.end(),
                             [](const auto& a, const auto& b) {
                               return a.text == b.text && a.score == b.score && a.type == b.type;
                             }),
              "the model changed on its way out and in");
      for (size_t i = 0; i < std::min<size_t>(model.pieces.size(), 4); ++i) texts.push_back(model.pieces[i].text);
      tokenizer = models::parse_tokenizer_spiece(bytes, "fuzz.model", 2);
    }
    texts.emplace_back(bytes.substr(0, 200));
    for (const std::string& text : texts) {
      const std::vector<int32_t> ids = tokenizer->encode(text, kMaxTokens);
      require(ids.size() <= kMaxTokens, "as many ids as asked for");
      require(std::all_of(ids.begin(), ids.end(), [](int32_t id) { return id >= 0; }), "ids that are some");
      require(tokenizer->encode(text, kMaxTokens) == ids, "the same ids the second time");
    }
  } catch (const ConfigError& error) {
    require_readable(error.what());
  }
}

}  // namespace strobe::fuzz
