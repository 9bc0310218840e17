#include "tools/pattern_input.h"

#include <fmt/ranges.h>

#include <charconv>

#include "core/torch.h"
// After the precompiled header.
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "core/timer.h"

namespace strobe::tools {
namespace {

constexpr int64_t kMaxSide = 1 << 20;

std::vector<int64_t> integers(const ConfigNode& node, char separator, const std::string& expected) {
  const std::string& text = node.as_string();
  std::vector<int64_t> values;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    int64_t value = 0;
    const auto [next, code] = std::from_chars(at, end, value);
    if (code != std::errc{} || value < 0 || value > kMaxSide)
      node.fail("expected " + expected + ", got '" + text + "'");
    values.push_back(value);
    if (next == end) return values;
    if (*next != separator) node.fail("expected " + expected + ", got '" + text + "'");
    at = next + 1;
  }
}

// "226", "226:start".
void read_text(const ConfigNode& effective, TokenGrid& grid) {
  const ConfigNode* node = effective.find("text");
  if (!node) return;
  const std::string& text = node->as_string();
  const size_t colon = text.find(':');
  const std::string side = colon == std::string::npos ? "end" : text.substr(colon + 1);
  int64_t tokens = 0;
  const char* end = text.data() + std::min(colon, text.size());
  const auto [next, code] = std::from_chars(text.data(), end, tokens);
  if (code != std::errc{} || next != end || tokens < 0 || tokens > kMaxSide || (side != "end" && side != "start")) {
    node->fail(fmt::format("expected TOKENS, TOKENS:end or TOKENS:start, got '{}'", text));
  }
  grid.text_tokens = tokens;
  grid.is_text_first = side == "start";
}

std::string shape_text(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

at::Tensor read_tensor(const weights::TensorSource& source, const std::string& name) {
  at::Tensor tensor = source.read(name);
  const std::string place = fmt::format("{}: {}", source.file_of(name), name);
  if (!tensor.is_floating_point()) throw WeightError(place + ": expected floating point");
  if (tensor.dim() != 4 || tensor.numel() == 0) {
    throw WeightError(fmt::format("{}: expected [B, H, N, D], found {}", place, shape_text(tensor)));
  }
  tensor = tensor.to(at::kFloat).contiguous();
  if (!at::isfinite(tensor).all().item<bool>()) throw WeightError(place + ": holds NaN or infinity");
  return tensor;
}

bool has(const weights::TensorSource& source, const std::string& name) {
  for (const weights::TensorInfo& info : source.tensors()) {
    if (info.name == name) return true;
  }
  return false;
}

void check_shapes(const weights::TensorSource& source, const QkvCall& call, const std::string& suffix) {
  const auto fail = [&](const std::string& name, const at::Tensor& tensor, const std::string& expected) {
    throw WeightError(fmt::format("{}: {}{}: expected {} beside q {}, found {}", source.file_of("q"), name, suffix,
                                  expected, shape_text(call.q), shape_text(tensor)));
  };
  const at::Tensor &q = call.q, &k = call.k;
  if (k.size(0) != q.size(0) || k.size(2) != q.size(2) || k.size(3) != q.size(3) || q.size(1) % k.size(1) != 0) {
    fail("k", k, "[B, Hk, N, D] with Hk a divisor of H");
  }
  if (call.v.defined() && call.v.sizes() != k.sizes()) fail("v", call.v, "the shape of k " + shape_text(k));
}

}  // namespace

attention::AttentionSite pattern_site(const ConfigNode& effective, int64_t tokens) {
  attention::AttentionSite site;
  read_text(effective, site.grid);
  if (const ConfigNode* node = effective.find("grid")) {
    const auto sides = integers(*node, ',', "FRAMES,ROWS,COLS");
    if (sides.size() != 3 || sides[0] < 1 || sides[1] < 1 || sides[2] < 1) {
      node->fail(fmt::format("expected FRAMES,ROWS,COLS, each at least 1, got '{}'", node->as_string()));
    }
    site.grid.frames = sides[0];
    site.grid.rows = sides[1];
    site.grid.cols = sides[2];
  } else if (tokens > 0) {
    site.grid.frames = site.grid.rows = 1;
    site.grid.cols = tokens - site.grid.text_tokens;
  } else {
    throw ConfigError("--grid FRAMES,ROWS,COLS must be given where no tensors say how many tokens there are");
  }
  if (site.grid.video_tokens() < 1 || site.grid.tokens() > (int64_t{1} << 30)) {
    throw ConfigError(fmt::format("--grid: {} video and {} text tokens are none that can be attended to",
                                  site.grid.video_tokens(), site.grid.text_tokens));
  }
  if (tokens > 0 && site.grid.tokens() != tokens) {
    throw ConfigError(fmt::format("--grid {}x{}x{} and {} text tokens are {} tokens, q has {}", site.grid.frames,
                                  site.grid.rows, site.grid.cols, site.grid.text_tokens, site.grid.tokens(), tokens));
  }
  site.layer = static_cast<int>(effective.get_integer("layer", 0));
  site.layers = static_cast<int>(effective.get_integer("layers", std::max(site.layer + 1, 1)));
  site.step = static_cast<int>(effective.get_integer("step", 0));
  site.steps = static_cast<int>(effective.get_integer("steps", std::max(50, site.step + 1)));
  if (site.layer >= site.layers) {
    throw ConfigError(fmt::format("--layer {}: expected less than --layers {}", site.layer, site.layers));
  }
  if (site.step >= site.steps) {
    throw ConfigError(fmt::format("--step {}: expected less than --steps {}", site.step, site.steps));
  }
  site.sigma = effective.get_number("sigma", 0);
  site.seed = static_cast<uint64_t>(effective.get_integer("seed", 0));
  site.plans_always = effective.find("step") == nullptr;
  site.branches = {Branch::kCond};
  return site;
}

attention::AttentionRule pattern_rule(const ConfigNode& effective) {
  const ConfigNode::List& rules = effective.at("attention").as_list();
  if (rules.size() != 1) throw ConfigError(fmt::format("--attention: expected one method, got {}", rules.size()));
  std::string text = rules[0].as_string();
  for (const char* option : {"block_size", "query_block"}) {
    const ConfigNode* value = effective.find(option);
    if (!value) continue;
    const std::string key = std::string(option) + "=";
    if (text.find(":" + key) != std::string::npos || text.find("," + key) != std::string::npos) {
      throw ConfigError(
          fmt::format("--attention {}: {} is also given by its own flag; give one of them", text, option));
    }
    text += (text.find(':') == std::string::npos ? ":" : ",") + key + fmt::format("{}", value->as_integer());
  }
  attention::AttentionRule rule = attention::make_rule(ConfigNode::string(text));
  if (!rule.heads.is_all()) throw ConfigError("--attention: heads= has no place here: every head is planned");
  return rule;
}

std::vector<QkvCall> read_qkv(const weights::TensorSource& source, const ConfigNode& effective, bool needs_values) {
  std::vector<QkvCall> calls;
  for (int i = 1; i == 1 || has(source, fmt::format("q{}", i)); ++i) {
    const std::string suffix = i == 1 ? "" : fmt::format("{}", i);
    QkvCall call{.q = read_tensor(source, "q" + suffix), .k = read_tensor(source, "k" + suffix), .v = {}};
    if (has(source, "v" + suffix)) {
      call.v = read_tensor(source, "v" + suffix);
    } else if (i > 1) {
      call.v = calls[0].v;
    }
    if (needs_values && !call.v.defined()) {
      throw WeightError(fmt::format("{}: no tensor 'v'; --plan-only does without", source.file_of("q")));
    }
    if (i > 1 && call.q.sizes() != calls[0].q.sizes()) {
      throw WeightError(fmt::format("{}: q{}: expected {} as q, found {}", source.file_of("q"), suffix,
                                    shape_text(calls[0].q), shape_text(call.q)));
    }
    check_shapes(source, call, suffix);
    calls.push_back(std::move(call));
  }
  std::vector<int64_t> steps;
  if (const ConfigNode* node = effective.find("call_steps")) {
    steps = integers(*node, ',', "steps such as 10,30");
    if (steps.size() != calls.size()) {
      node->fail(
          fmt::format("expected a step for each of the {} calls of the file, got {}", calls.size(), steps.size()));
    }
  }
  const auto first = static_cast<int>(effective.get_integer("step", 0));
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i].step = steps.empty() ? first + static_cast<int>(i) : static_cast<int>(steps[i]);
  }
  return calls;
}

PlannedLayout plan_layout(const attention::AttentionRule& rule, const attention::AttentionSite& site,
                          const at::Tensor& q, const at::Tensor& k, attention::PatternState& state) {
  const Timer timer;
  PlannedLayout result;
  result.note = rule.matches(site, 0) ? rule.dense_reason(site) : "the rule does not hold here";
  if (!result.note.empty()) return result;
  result.orders = rule.pattern->order(site);
  const auto ordered = [](const at::Tensor& tensor, const std::shared_ptr<const TokenOrder>& order) {
    if (!tensor.defined() || !order) return tensor;
    return tensor.index_select(2, at::tensor(order->raster(), at::kLong));
  };
  const at::Tensor own_q = ordered(q, result.orders.q), none;
  at::Tensor own_k = ordered(k, result.orders.k);
  if (own_k.defined()) own_k = attention::key_for_each_head(own_k, q.size(1));
  const attention::TorchScorer scorer;
  const attention::PatternCall call{
      .site = site, .q = own_q, .k = own_k, .key_bias = none, .scorer = scorer, .state = state};
  attention::AttentionPlan plan = rule.pattern->plan(call);
  result.layout = plan.layout;
  result.note = plan.note;
  if (plan.wants_lse) {
    const LayoutPtr held =
        rule.pattern->observe(call, scorer.row_lse({.q = own_q, .k = own_k, .key_bias = none, .scale = 0}));
    if (!result.layout) result.layout = held;
  }
  result.milliseconds = timer.milliseconds();
  return result;
}

}  // namespace strobe::tools
