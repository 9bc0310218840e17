// strobe pattern: plans and runs one method on tensors of a file, shows layouts, lists methods.
#include <fmt/ranges.h>

#include <cstdio>
#include <fstream>
#include <numeric>

#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "attention/layout_tensors.h"
#include "core/error.h"
#include "core/log.h"
#include "tools/app.h"
#include "tools/layout_picture.h"
#include "tools/pattern_input.h"
#include "weights/safetensors.h"

namespace strobe::tools {
namespace {

using attention::AttentionEvent;
using attention::AttentionRule;
using attention::AttentionSite;

bool has_empty_row(const BlockLayout& layout) {
  try {
    layout.validate();
  } catch (const ShapeError&) {
    return true;
  }
  return false;
}

// Everything of one call, all batch items.
struct CallRecord {
  std::vector<at::Tensor> levels, outs, lses;
  LayoutPtr layout;
  attention::PatternOrders orders;
  std::string kernel, note;
  std::vector<double> densities;
  double selection_ms = 0, kernel_ms = 0;
  bool was_dense = false;

  double density() const {
    return std::accumulate(densities.begin(), densities.end(), 0.0) / static_cast<double>(densities.size());
  }
};

void add_tensors(const CallRecord& record, const std::string& suffix, std::map<std::string, at::Tensor>& tensors) {
  const auto one = [](const std::vector<at::Tensor>& items) {
    return items.size() == 1 ? items[0] : at::stack(items, 0);
  };
  tensors.emplace("level" + suffix, one(record.levels));
  if (!record.outs.empty()) tensors.emplace("out" + suffix, at::cat(record.outs, 0));
  if (!record.lses.empty()) tensors.emplace("lse" + suffix, at::cat(record.lses, 0));
  if (suffix.empty()) attention::add_geometry(*record.layout, record.orders, tensors);
}

// Offsets of `sample=given`, for one batch item.
void give_offsets(const weights::TensorSource& source, int64_t item, attention::PatternState& state) {
  for (const weights::TensorInfo& info : source.tensors()) {
    if (info.name != "q_offsets" && info.name != "k_offsets") continue;
    at::Tensor offsets = source.read(info.name).to(at::kInt);
    if (offsets.dim() == 3) offsets = offsets.select(0, std::min(item, offsets.size(0) - 1));
    state.tensors[info.name] = offsets.contiguous();
  }
}

void set_step(const QkvCall& call, AttentionSite& site) {
  site.step = call.step;
  if (site.step >= site.steps) {
    throw ConfigError(fmt::format("--call-steps: step {}: expected less than --steps {}", site.step, site.steps));
  }
}

// With a step the rule holds where it says; it may name no other layers and steps than there are. Blocks larger than the
// sequence are none.
void check_place(const AttentionRule& rule, const AttentionSite& site) {
  if (!site.plans_always) rule.check_range({.steps = site.steps, .layers = site.layers, .heads = 0});
  if (const std::string text = rule.check_block(site.grid.tokens()); !text.empty()) log_warning("{}", text);
}

std::vector<CallRecord> run_calls(const ConfigNode& effective, const weights::TensorSource& source,
                                  const AttentionRule& rule) {
  const auto calls = read_qkv(source, effective, /*needs_values=*/true);
  AttentionSite site = pattern_site(effective, calls[0].q.size(2));
  check_place(rule, site);
  const pipelines::Device device = device_of(effective);
  attention::AttentionEngine engine({.rules = {rule},
                                     .backend = effective.get_string("attention_backend", "auto"),
                                     .cache_bytes = effective.get_integer("pattern_cache_mib", 2048) << 20});
  std::vector<CallRecord> records;
  engine.set_observer({.on_call =
                           [&](const AttentionEvent& event) {
                             CallRecord& record = records.back();
                             record.was_dense = !event.plan.layout;
                             record.layout = event.layout ? event.layout : attention::one_block(site.grid.tokens());
                             record.orders = event.orders;
                             record.levels.push_back(attention::level_tensor(*record.layout));
                             record.lses.push_back(event.lse.to(at::kCPU));
                             record.kernel = event.kernel;
                             record.note = event.plan.note;
                             record.densities.push_back(record.layout->density());
                             record.selection_ms += event.selection_ms;
                             record.kernel_ms += event.milliseconds;
                           },
                       .wants_lse = true});
  const int64_t batch = calls[0].q.size(0);
  site.branches.assign(static_cast<size_t>(batch), Branch::kCond);
  for (int64_t item = 0; item < batch; ++item) {
    AttentionSite one = site;
    one.branches = {Branch::kCond};
    one.sample = static_cast<int>(item);
    give_offsets(source, item, engine.state(one, 0));
  }
  for (const QkvCall& call : calls) {
    records.emplace_back();
    set_step(call, site);
    const auto on_device = [&](const at::Tensor& tensor) { return tensor.to(device.device, device.dtype); };
    const at::Tensor out =
        engine(site, {.q = on_device(call.q), .k = on_device(call.k), .v = on_device(call.v), .key_bias = {}});
    records.back().outs.push_back(out.to(at::kCPU, at::kFloat).contiguous());
  }
  return records;
}

void plan_item(const AttentionRule& rule, const AttentionSite& site, const at::Tensor& q, const at::Tensor& k,
               attention::PatternState& state, CallRecord& record) {
  PlannedLayout planned = plan_layout(rule, site, q, k, state);
  record.was_dense = !planned.layout;
  record.layout = planned.layout ? planned.layout : attention::one_block(site.grid.tokens());
  record.orders = planned.orders;
  record.note = planned.note;
  record.densities.push_back(record.layout->density());
  record.selection_ms += planned.milliseconds;
  record.levels.push_back(attention::level_tensor(*record.layout));
}

std::vector<CallRecord> plan_calls(const ConfigNode& effective, const weights::TensorSource* source,
                                   const AttentionRule& rule) {
  const attention::PlanDependence depends = rule.pattern->dependence();
  std::vector<CallRecord> records;
  if (source) {
    const auto calls = read_qkv(*source, effective, /*needs_values=*/false);
    AttentionSite site = pattern_site(effective, calls[0].q.size(2));
    check_place(rule, site);
    std::vector<attention::PatternState> states(static_cast<size_t>(calls[0].q.size(0)));
    for (size_t item = 0; item < states.size(); ++item) {
      give_offsets(*source, static_cast<int64_t>(item), states[item]);
    }
    for (const QkvCall& call : calls) {
      set_step(call, site);
      records.emplace_back();
      for (size_t item = 0; item < states.size(); ++item) {
        const auto i = static_cast<int64_t>(item);
        site.sample = static_cast<int>(item);
        plan_item(rule, site, call.q.narrow(0, i, 1), call.k.narrow(0, i, 1), states[item], records.back());
      }
    }
  } else {
    if (depends.on_tensors || depends.on_state) {
      throw ConfigError(fmt::format("--attention {}: this method reads q and k; give --qkv", rule.method));
    }
    const AttentionSite site = pattern_site(effective, 0);
    check_place(rule, site);
    attention::PatternState state;
    records.emplace_back();
    plan_item(rule, site, {}, {}, state, records[0]);
  }
  const ConfigNode* heads = effective.find("heads");
  for (CallRecord& record : records) {
    for (at::Tensor& level : record.levels) {
      if (heads && level.size(0) == 1) level = level.expand({heads->as_integer(), -1, -1}).contiguous();
    }
  }
  return records;
}

void say(const AttentionRule& rule, const CallRecord& record, const std::string& name) {
  const BlockLayout& layout = *record.layout;
  std::string text =
      fmt::format("{}{}: {} x {} blocks, {} head{}, density {:.4f}, planned in {:.1f} ms",
                  name.empty() ? "" : name + " ", rule.method, layout.query_blocks(), layout.key_blocks(),
                  layout.heads(), layout.heads() == 1 ? "" : "s", record.density(), record.selection_ms);
  if (!record.kernel.empty()) {
    text += fmt::format("; {}{} {:.1f} ms", record.was_dense ? "dense by " : "", record.kernel, record.kernel_ms);
  }
  if (!record.note.empty()) text += "; " + record.note;
  std::fputs((text + "\n").c_str(), stdout);
  if (has_empty_row(layout)) {
    log_warning("{}: query blocks that keep no key: their output is 0; generate refuses such a layout", rule.method);
  }
}

std::shared_ptr<const weights::TensorSource> open_qkv(const ConfigNode& effective) {
  const std::string path = effective.get_string("qkv", "");
  return path.empty() ? nullptr : weights::open_safetensors(path);
}

std::string read_styles(const std::string& method) {
  const attention::PatternInfo& info = attention::pattern_info(method);
  std::string text = fmt::format("{}: {}\n", info.name, info.sentence);
  if (!info.source.empty()) text += fmt::format("  source: {}\n", info.source);
  text += "\noptions\n";
  for (const attention::OptionDescription& option : attention::describe_options(method)) {
    text += fmt::format("  {:<20} {}{}\n      {}\n", option.name, option.type,
                        option.fallback.empty() ? "" : "; default " + option.fallback, option.sentence);
  }
  if (!info.presets.empty()) text += "\npresets\n";
  for (const attention::PatternPreset& preset : info.presets) {
    text += fmt::format("  {:<20} {}\n      {}\n", "preset=" + preset.name, preset.sentence, preset.options);
  }
  return text;
}

}  // namespace

int run_pattern_run(const Invocation& invocation) {
  at::NoGradGuard no_grad;
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const AttentionRule rule = pattern_rule(effective);
  const std::filesystem::path output = effective.get_string("output", "");
  if (!output.empty()) pipelines::check_output_file(output, effective.get_bool("overwrite", false));
  const auto source = open_qkv(effective);
  const bool is_plan_only = effective.get_bool("plan_only", false);
  if (!source && !is_plan_only)
    throw ConfigError("--qkv FILE must be given, or --plan-only for a method that reads none");
  const std::vector<CallRecord> records =
      is_plan_only ? plan_calls(effective, source.get(), rule) : run_calls(effective, *source, rule);
  std::map<std::string, at::Tensor> tensors;
  for (size_t i = 0; i < records.size(); ++i) {
    add_tensors(records[i], i == 0 ? "" : fmt::format("{}", i + 1), tensors);
    say(rule, records[i], records.size() > 1 ? fmt::format("call {}", i + 1) : "");
  }
  if (output.empty()) return 0;
  weights::save_safetensors(output, tensors,
                            {{"method", rule.method},
                             {"options", rule.options},
                             {"density", fmt::format("{}", records[0].density())},
                             {"backend", records[0].kernel},
                             {"selection_ms", fmt::format("{:.3f}", records[0].selection_ms)},
                             {"attention_ms", fmt::format("{:.3f}", records[0].kernel_ms)},
                             {"dtype", effective.get_string("dtype", "auto")},
                             {"note", records[0].note}});
  return 0;
}

int run_pattern_show(const Invocation& invocation) {
  at::NoGradGuard no_grad;
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const std::filesystem::path output = effective.get_string("output", "");
  if (!output.empty()) pipelines::check_output_file(output, effective.get_bool("overwrite", false));
  at::Tensor level;
  const std::string file = invocation.positional("FILE");
  if (!file.empty()) {
    level = weights::open_safetensors(file)->read("level");
  } else {
    const AttentionRule rule = pattern_rule(effective);
    const auto source = open_qkv(effective);
    const std::vector<CallRecord> records = plan_calls(effective, source.get(), rule);
    say(rule, records[0], "");
    level = records[0].levels[0];
  }
  if (level.dim() == 4) level = level.select(0, 0);
  if (level.dim() != 3 || level.scalar_type() != at::kByte) {
    throw WeightError(fmt::format("{}: level: expected uint8 [heads, M, K]", file));
  }
  const int64_t head = effective.get_integer("head", 0);
  if (head >= level.size(0)) {
    throw ConfigError(fmt::format("--head {}: the layout has {} of them", head, level.size(0)));
  }
  if (output.empty()) {
    std::fputs(layout_text(level.select(0, head)).c_str(), stdout);
  } else {
    save_layout_picture(output, level.select(0, head), effective.get_bool("overwrite", false));
  }
  return 0;
}

int run_pattern_list(const Invocation& invocation) {
  const std::string method = invocation.positional("METHOD");
  std::string text;
  if (!method.empty()) {
    text = read_styles(method);
  } else {
    for (const attention::PatternInfo& info : attention::pattern_infos()) {
      std::vector<std::string> presets;
      for (const attention::PatternPreset& preset : info.presets) presets.push_back(preset.name);
      text += fmt::format("{:<8} {}\n", info.name, info.sentence);
      if (!info.source.empty()) text += fmt::format("         {}\n", info.source);
      if (!presets.empty()) text += fmt::format("         presets: {}\n", fmt::join(presets, " "));
    }
    text += "\noptions of a method: strobe pattern list METHOD\n";
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace strobe::tools
