// What the checker of sprite clips found, as a table and as JSON; and files of captions.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "training/sprites/checker/checker.h"

namespace strobe::tools {

struct CheckedClip {
  std::string name;
  std::string caption;  // empty: none is known, and nothing is judged
  training::sprites::Reading reading;
  std::optional<training::sprites::Verdict> verdict;
};

// A line a clip (only those that are wrong, unless asked), then the score.
std::string report_text(const std::vector<CheckedClip>& clips, bool lists_right_ones);

// {schema, clips: [{file, caption, objects, background, verdict}], score: {colour: {right, total, ratio}, ...}}.
std::string report_json(const std::vector<CheckedClip>& clips);

// .jsonl: an object a line with `file` and `caption` (or `prompt`). Any other: a prompt file (pipelines/prompt_file.h).
// ConfigError with the line for what is malformed.
struct CaptionFile {
  std::map<std::string, std::string> by_file;
  std::vector<std::string> in_order;
};
CaptionFile load_caption_file(const std::filesystem::path& path);

}  // namespace strobe::tools
