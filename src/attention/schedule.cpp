#include "attention/schedule.h"

#include <cmath>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/nearest.h"

namespace strobe::attention {
namespace {

constexpr double kMaxIndex = 1e6;
constexpr int64_t kGuidanceBranches = 2;  // that keep states of their own

ConfigNode with_preset(const PatternInfo& info, const ConfigNode& options) {
  const ConfigNode* named = options.find("preset");
  if (named == nullptr) return options;
  const std::string name = named->is_string() ? named->as_string() : "";
  std::vector<std::string> names;
  for (const PatternPreset& preset : info.presets) names.push_back(preset.name);
  for (const PatternPreset& preset : info.presets) {
    if (preset.name != name) continue;
    ConfigNode merged = parse_option_text(preset.options, info.name + ": preset " + name);
    for (const auto& [key, value] : options.as_map()) {
      if (key != "preset") merged.set(key, value);
    }
    return merged;
  }
  const std::string message = unknown_name_message("preset of the method '" + info.name + "':", name, names);
  throw ConfigError(named->origin().empty() ? message : named->origin() + ": " + message);
}

void read_common(OptionReader& reader, const PatternInfo& info, AttentionRule& rule) {
  rule.dense_fraction = info.dense_fraction;
  rule.dense_steps = reader.optional_integer(
      "dense_steps", {.min = 0, .max = kMaxIndex},
      fmt::format("first steps that attend densely; default {} of the steps, rounded down", info.dense_fraction));
  rule.dense_last_steps =
      reader.integer("dense_last_steps", 0, {.min = 0, .max = kMaxIndex}, "last steps that attend densely");
  rule.dense_layers = reader.integer("dense_layers", info.dense_layers, {.min = 0, .max = kMaxIndex},
                                     "first layers that attend densely");
  rule.refresh_every_steps = reader.integer("refresh_every_steps", 0, {.min = 0, .max = kMaxIndex},
                                            "steps that a plan serves; 0: as the method says");
  rule.steps = reader.indices("steps", "steps where the rule holds");
  rule.layers = reader.indices("layers", "layers where the rule holds");
  rule.heads = reader.indices("heads", "heads where the rule holds");
  rule.sigma_max =
      reader.optional_number("sigma_max", {.min = 0, .max = 1e6}, "the rule holds while sigma is at most this");
  rule.shares_branches =
      reader.flag("share_branches", false, "the branches of guidance use the plan of the first of them");
  rule.min_tokens =
      reader.integer("min_tokens", 0, {.min = 0, .max = 1e9}, "with fewer tokens the method attends densely");
}

// The sizes in force, as the reader knows them once the method has read its options.
void read_blocks(const OptionReader& reader, AttentionRule& rule) {
  const ConfigNode in_force = parse_option_text(reader.effective(), rule.method);
  for (const OptionDescription& option : reader.descriptions()) {
    if (option.name != "block_size" && option.name != "query_block") continue;
    const ConfigNode* text = in_force.find(option.name);
    if (text == nullptr) continue;
    const int64_t tokens = std::stoll(text->as_string());
    if (tokens <= rule.block_tokens) continue;
    rule.block_tokens = tokens;
    rule.is_default_block = text->as_string() == option.fallback;
  }
}

AttentionRule build_rule(const std::string& method, const ConfigNode& options) {
  const PatternInfo& info = pattern_info(method);
  OptionReader reader(method, with_preset(info, options));
  AttentionRule rule;
  rule.method = method;
  read_common(reader, info, rule);
  rule.pattern = info.make(reader);
  reader.finish();
  rule.options = reader.effective();
  read_blocks(reader, rule);
  return rule;
}

ConfigNode options_of_map(const ConfigNode& node) {
  ConfigNode options = ConfigNode::map();
  const auto add = [&](const std::string& key, const ConfigNode& value) {
    if (options.find(key) != nullptr) value.fail(fmt::format("'{}' is given twice", key));
    options.set(key, value);
  };
  for (const auto& [key, value] : node.as_map()) {
    if (key == "method") continue;
    if (key != "options") {
      add(key, value);
    } else if (value.is_map()) {
      for (const auto& [name, option] : value.as_map()) add(name, option);
    } else if (!value.is_null()) {
      value.fail(fmt::format("options: expected a map, found {}", value.describe()));
    }
  }
  return options;
}

}  // namespace

int64_t AttentionRule::dense_steps_of(int64_t steps_of_run) const {
  // 1e-9: 0.3 * 40 has to be 12 on every machine.
  return dense_steps.value_or(
      static_cast<int64_t>(std::floor(dense_fraction * static_cast<double>(steps_of_run) + 1e-9)));
}

bool AttentionRule::matches(const AttentionSite& site, int64_t head) const {
  if (site.plans_always) return heads.contains(head);
  return steps.contains(site.step) && layers.contains(site.layer) && heads.contains(head) &&
         (!sigma_max || site.sigma <= *sigma_max);
}

std::string AttentionRule::dense_reason(const AttentionSite& site) const {
  if (is_dense() || site.plans_always) return {};
  const int64_t first_steps = dense_steps_of(site.steps);
  if (site.step < first_steps) return fmt::format("first {} steps dense", first_steps);
  if (site.step >= site.steps - dense_last_steps) return fmt::format("last {} steps dense", dense_last_steps);
  if (site.layer < dense_layers) return fmt::format("first {} layers dense", dense_layers);
  if (site.grid.tokens() < min_tokens) return fmt::format("fewer than {} tokens", min_tokens);
  return {};
}

void AttentionRule::check_range(const RunRange& run) const {
  const auto check = [this](const char* name, const IndexSet& set, int64_t count) {
    if (set.last() < count) return;
    throw ConfigError(
        fmt::format("--attention {}: {}={}: this run has the {} 0 to {}", method, name, set.text(), name, count - 1));
  };
  check("steps", steps, run.steps);
  check("layers", layers, run.layers);
  check("heads", heads, run.heads);
}

std::string AttentionRule::check_block(int64_t tokens) const {
  if (block_tokens <= tokens) return {};
  std::string text =
      fmt::format("--attention {}: a block of {} is larger than the sequence of {} tokens: nothing can be dropped",
                  method, block_tokens, tokens);
  if (!is_default_block) throw ConfigError(text);
  return text;
}

void AttentionRule::check_states(const AttentionSite& site, int64_t count, int64_t bound_bytes) const {
  const int64_t branches = shares_branches ? 1 : kGuidanceBranches;
  const int64_t all = pattern->state_bytes(site.grid, count) * std::max(1, site.layers) * branches;
  if (all <= bound_bytes) return;
  throw UnsupportedError(
      fmt::format("{}: what it remembers between steps takes {:.1f} MiB ({} layers, {} branches), "
                  "--pattern-cache-mib allows {}; a larger block size needs less",
                  method, static_cast<double>(all) / (1 << 20), site.layers, branches, bound_bytes >> 20));
}

std::unique_ptr<AttentionPattern> make_pattern(const std::string& name, const ConfigNode& options) {
  const PatternInfo& info = pattern_info(name);
  OptionReader reader(name, with_preset(info, options));
  AttentionRule unused;
  read_common(reader, info, unused);
  auto pattern = info.make(reader);
  reader.finish();
  return pattern;
}

AttentionRule make_rule(const ConfigNode& node) {
  if (node.is_string()) {
    const std::string& text = node.as_string();
    const size_t colon = text.find(':');
    const std::string method = text.substr(0, colon);
    const std::string options = colon == std::string::npos ? "" : text.substr(colon + 1);
    return build_rule(method, parse_option_text(options, method));
  }
  if (!node.is_map()) node.fail(fmt::format("expected METHOD[:key=value,...] or a map, found {}", node.describe()));
  const ConfigNode& method = node.at("method");
  return build_rule(method.as_string(), options_of_map(node));
}

std::vector<AttentionRule> make_rules(const ConfigNode& node) {
  std::vector<AttentionRule> rules;
  if (node.is_list()) {
    for (const ConfigNode& item : node.as_list()) rules.push_back(make_rule(item));
  } else if (!node.is_null()) {
    rules.push_back(make_rule(node));
  }
  return rules;
}

std::vector<OptionDescription> describe_options(const std::string& method) {
  const PatternInfo& info = pattern_info(method);
  OptionReader reader(method, ConfigNode::null());
  AttentionRule unused;
  read_common(reader, info, unused);
  (void)info.make(reader);
  return reader.descriptions();
}

}  // namespace strobe::attention
