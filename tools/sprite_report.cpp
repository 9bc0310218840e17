#include "tools/sprite_report.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "core/config_node.h"
#include "core/error.h"
#include "core/text_file.h"
#include "pipelines/generate_keys.h"
#include "pipelines/prompt_file.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

namespace sprites = training::sprites;
using sprites::Verdict;

constexpr uintmax_t kMaxCaptionBytes = 64 << 20;

struct Attribute {
  const char* name;
  std::optional<bool> (*verdict)(const Verdict& verdict);
};

// Of all clips with a caption; `all` is every attribute that the caption names.
constexpr std::array<Attribute, 8> kAttributes = {{
    {"present", [](const Verdict& v) -> std::optional<bool> { return v.is_present; }},
    {"count", [](const Verdict& v) { return v.count; }},
    {"size", [](const Verdict& v) { return v.size; }},
    {"colour", [](const Verdict& v) { return v.colour; }},
    {"shape", [](const Verdict& v) { return v.shape; }},
    {"motion", [](const Verdict& v) { return v.motion; }},
    {"background", [](const Verdict& v) { return v.background; }},
    {"all", [](const Verdict& v) -> std::optional<bool> { return v.is_all_right(); }},
}};

struct Score {
  int right = 0, total = 0;
};

Score score_of(const std::vector<CheckedClip>& clips, const Attribute& attribute) {
  Score score;
  for (const CheckedClip& clip : clips) {
    const std::optional<bool> one = clip.verdict ? attribute.verdict(*clip.verdict) : std::nullopt;
    if (!one) continue;
    ++score.total;
    score.right += *one ? 1 : 0;
  }
  return score;
}

std::string words_of(const sprites::Reading& reading) {
  std::vector<std::string> objects;
  for (const sprites::ObjectReading& object : reading.objects) {
    objects.push_back(fmt::format("{} {} {} {}", name(object.size), name(object.colour), name(object.shape),
                                  object.motion ? name(*object.motion) : "in no known motion"));
  }
  return fmt::format("{}, {} background",
                     objects.empty() ? "no object" : fmt::format("{}", fmt::join(objects, " and ")),
                     name(reading.background));
}

std::string wrong_ones(const Verdict& verdict) {
  std::vector<std::string> names;
  for (const Attribute& attribute : kAttributes) {
    const bool is_sum = std::string_view(attribute.name) == "all";
    if (!is_sum && !attribute.verdict(verdict).value_or(true)) names.emplace_back(attribute.name);
  }
  return fmt::format("{}", fmt::join(names, " "));
}

ConfigNode verdict_node(const std::optional<bool>& verdict) {
  return verdict ? ConfigNode::boolean(*verdict) : ConfigNode::null();
}

ConfigNode clip_node(const CheckedClip& clip) {
  ConfigNode::List objects;
  for (const sprites::ObjectReading& object : clip.reading.objects) {
    objects.push_back(
        ConfigNode::map({{"size", ConfigNode::string(name(object.size))},
                         {"colour", ConfigNode::string(name(object.colour))},
                         {"shape", ConfigNode::string(name(object.shape))},
                         {"motion", object.motion ? ConfigNode::string(name(*object.motion)) : ConfigNode::null()},
                         {"presence_ratio", ConfigNode::number(object.presence_ratio)},
                         {"radius", ConfigNode::number(object.radius)},
                         {"overlap_ratio", ConfigNode::number(object.overlap_ratio)}}));
  }
  ConfigNode verdict = ConfigNode::null();
  if (clip.verdict) {
    ConfigNode::Map map;
    for (const Attribute& attribute : kAttributes) {
      map.emplace_back(attribute.name, verdict_node(attribute.verdict(*clip.verdict)));
    }
    verdict = ConfigNode::map(std::move(map));
  }
  return ConfigNode::map({{"file", ConfigNode::string(clip.name)},
                          {"caption", clip.caption.empty() ? ConfigNode::null() : ConfigNode::string(clip.caption)},
                          {"objects", ConfigNode::list(std::move(objects))},
                          {"background", ConfigNode::string(name(clip.reading.background))},
                          {"verdict", std::move(verdict)}});
}

}  // namespace

std::string report_text(const std::vector<CheckedClip>& clips, bool lists_right_ones) {
  std::string text;
  for (const CheckedClip& clip : clips) {
    const bool is_right = clip.verdict && clip.verdict->is_all_right();
    if (is_right && !lists_right_ones) continue;
    const std::string verdict = !clip.verdict ? "" : is_right ? "right" : "wrong: " + wrong_ones(*clip.verdict);
    text += fmt::format("{}: {}\n", clip.name, words_of(clip.reading));
    if (clip.verdict) text += fmt::format("  {}; asked for: {}\n", verdict, clip.caption);
  }
  if (score_of(clips, kAttributes[0]).total == 0) return text;
  text += fmt::format("{:<12} {:>6} {:>6} {:>8}\n", "", "right", "of", "");
  for (const Attribute& attribute : kAttributes) {
    const Score score = score_of(clips, attribute);
    if (score.total == 0) continue;
    text += fmt::format("{:<12} {:>6} {:>6} {:>7.1f}%\n", attribute.name, score.right, score.total,
                        100.0 * score.right / score.total);
  }
  return text;
}

std::string report_json(const std::vector<CheckedClip>& clips) {
  ConfigNode::List rows;
  for (const CheckedClip& clip : clips) rows.push_back(clip_node(clip));
  ConfigNode::Map scores;
  for (const Attribute& attribute : kAttributes) {
    const Score score = score_of(clips, attribute);
    ConfigNode ratio =
        score.total > 0 ? ConfigNode::number(static_cast<double>(score.right) / score.total) : ConfigNode::null();
    scores.emplace_back(attribute.name, ConfigNode::map({{"right", ConfigNode::integer(score.right)},
                                                         {"total", ConfigNode::integer(score.total)},
                                                         {"ratio", std::move(ratio)}}));
  }
  return weights::to_json(ConfigNode::map({{"schema", ConfigNode::integer(1)},
                                           {"clips", ConfigNode::list(std::move(rows))},
                                           {"score", ConfigNode::map(std::move(scores))}})) +
         "\n";
}

CaptionFile load_caption_file(const std::filesystem::path& path) {
  CaptionFile file;
  if (path.extension() != ".jsonl") {
    for (const pipelines::PromptLine& line : pipelines::load_prompt_file(path, pipelines::generate_keys())) {
      if (!line.error.empty()) throw ConfigError(line.error);
      file.in_order.push_back(line.text);
    }
    return file;
  }
  const std::string bytes = read_text_file(path, kMaxCaptionBytes);
  check_text(bytes, path.string());
  std::istringstream lines{std::string(without_byte_order_mark(bytes))};
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const ConfigNode node = weights::parse_json(line, fmt::format("{}:{}", path.string(), number));
    const ConfigNode& caption = node.find("caption") ? node.at("caption") : node.at("prompt");
    const std::string& name = node.at("file").as_string();
    if (!file.by_file.emplace(name, caption.as_string()).second) node.fail(fmt::format("{} again", name));
  }
  if (file.by_file.empty()) throw ConfigError(fmt::format("{}: no captions", path.string()));
  return file;
}

}  // namespace strobe::tools
