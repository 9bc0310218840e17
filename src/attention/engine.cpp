#include "attention/engine.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/kernel_scorer.h"
#include "attention/layout_tensors.h"
#include "core/error.h"
#include "core/timer.h"

namespace strobe::attention {
namespace {

const char* kind_name(AttentionKind kind) {
  return kind == AttentionKind::kCross ? "cross" : kind == AttentionKind::kSelf ? "self" : "joint";
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }

bool is_run(const std::vector<int64_t>& heads) {
  return heads.back() - heads.front() + 1 == static_cast<int64_t>(heads.size());
}

// The heads' share of [B, H, ...]; a view where they follow each other.
at::Tensor take_heads(const at::Tensor& tensor, const std::vector<int64_t>& heads) {
  if (is_run(heads)) return tensor.narrow(1, heads.front(), static_cast<int64_t>(heads.size()));
  return tensor.index_select(1, at::tensor(heads, at::kLong).to(tensor.device()));
}

// Key heads that the query heads read; several query heads may share one.
at::Tensor take_key_heads(const at::Tensor& tensor, const std::vector<int64_t>& heads, int64_t query_heads) {
  const int64_t shared = query_heads / tensor.size(1);
  if (shared == 1) return take_heads(tensor, heads);
  if (static_cast<int64_t>(heads.size()) == query_heads) return tensor;
  std::vector<int64_t> key_heads;
  key_heads.reserve(heads.size());
  for (const int64_t head : heads) key_heads.push_back(head / shared);
  return tensor.index_select(1, at::tensor(key_heads, at::kLong).to(tensor.device()));
}

// Null where tokens already stand so: nothing is looked up then.
PatternOrders without_identity(PatternOrders orders) {
  if (orders.q && orders.q->is_identity()) orders.q = nullptr;
  if (orders.k && orders.k->is_identity()) orders.k = nullptr;
  return orders;
}

std::string grid_text(const TokenGrid& g) {
  return fmt::format("{}x{}x{}{}{}", g.frames, g.rows, g.cols, g.is_text_first ? "<" : ">", g.text_tokens);
}

}  // namespace

// What one group of heads of one batch row needs on its way.
struct AttentionEngine::Call {
  const AttentionSite& site;
  const AttentionRule& rule;
  size_t rule_index;
  const std::vector<int64_t>& heads;
  int64_t all_heads;
  at::Tensor q, k, v, key_bias;
  at::Tensor pattern_k;  // k as the pattern sees it
  const Orders* orders = nullptr;
  PatternState* state = nullptr;
  AttentionPlan plan;
  AttentionRow row;
};

AttentionEngine::AttentionEngine(EngineOptions options)
    : options_(std::move(options)),
      backends_(make_backends(options_.backend)),
      scorer_(make_scorer()),
      cache_(options_.cache_bytes) {
  const auto is_dense = [](const AttentionRule& rule) { return rule.is_dense(); };
  if (std::all_of(options_.rules.begin(), options_.rules.end(), is_dense)) options_.rules.clear();
}

AttentionEngine::~AttentionEngine() = default;

std::string AttentionEngine::state_key(const AttentionSite& site, size_t rule) {
  return fmt::format("{}.{}.{}.{}.{}", rule, site.sample, site.stage, site.layer,
                     static_cast<int>(site.branches.at(0)));
}

void check_axes(const AttentionInput& input) {
  const at::Tensor &q = input.q, &k = input.k;
  STROBE_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == input.v.sizes() && q.size(0) == k.size(0) &&
                   q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
               "attention: q {}, k {}, v {} axes do not fit [B, H, N, D]", q.dim(), k.dim(), input.v.dim());
}

at::Tensor AttentionEngine::operator()(const AttentionSite& site, const AttentionInput& input) {
  const at::Tensor &q = input.q, &k = input.k;
  check_axes(input);
  at::Tensor out = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options()).transpose(1, 2);
  if (site.kind == AttentionKind::kCross || (options_.rules.empty() && !observer_.on_call)) {
    run_dense(site, input, out);
    return out;
  }
  STROBE_CHECK(site.grid.tokens() == q.size(2) && q.size(2) == k.size(2), "attention: a grid of {} tokens, q {}, k {}",
               site.grid.tokens(), q.size(2), k.size(2));
  AttentionSite row = site;
  for (int64_t b = 0; b < q.size(0); ++b) {
    const auto i = static_cast<size_t>(b);
    row.branches = {site.branches.size() > i ? site.branches[i] : Branch::kCond};
    row.valid_text.clear();
    if (site.valid_text.size() > i) row.valid_text = {site.valid_text[i]};
    // Rows of one branch are clips of their own.
    row.sample =
        site.sample + static_cast<int>(std::count(site.branches.begin(), site.branches.begin() + b, row.branches[0]));
    run_row(row,
            {.q = q.narrow(0, b, 1),
             .k = k.narrow(0, b, 1),
             .v = input.v.narrow(0, b, 1),
             .key_bias = input.key_bias.defined() ? input.key_bias.narrow(0, b, 1) : input.key_bias},
            out.narrow(0, b, 1));
  }
  return out;
}

std::vector<AttentionEngine::Group> AttentionEngine::group_heads(const AttentionSite& site, int64_t heads) const {
  std::vector<Group> groups;
  for (int64_t head = 0; head < heads; ++head) {
    int64_t winner = -1;
    for (size_t rule = 0; rule < options_.rules.size(); ++rule) {
      if (options_.rules[rule].matches(site, head)) winner = static_cast<int64_t>(rule);
    }
    auto group = std::find_if(groups.begin(), groups.end(), [winner](const Group& g) { return g.rule == winner; });
    if (group == groups.end()) group = groups.insert(groups.end(), {.rule = winner, .heads = {}});
    group->heads.push_back(head);
  }
  return groups;
}

void AttentionEngine::run_row(const AttentionSite& site, const AttentionInput& input, at::Tensor out) {
  const int64_t heads = input.q.size(1);
  for (const Group& group : group_heads(site, heads)) {
    const AttentionInput part{.q = take_heads(input.q, group.heads),
                              .k = take_key_heads(input.k, group.heads, heads),
                              .v = take_key_heads(input.v, group.heads, heads),
                              .key_bias = input.key_bias};
    if (is_run(group.heads)) {
      run_group(site, part, group, heads, take_heads(out, group.heads));
    } else {
      at::Tensor own = at::empty({1, part.q.size(2), part.q.size(1), part.q.size(3)}, part.q.options()).transpose(1, 2);
      run_group(site, part, group, heads, own);
      out.index_copy_(1, at::tensor(group.heads, at::kLong).to(out.device()), own);
    }
  }
}

void AttentionEngine::run_group(const AttentionSite& site, const AttentionInput& input, const Group& group,
                                int64_t all_heads, at::Tensor out) {
  static const AttentionRule no_rule = make_rule(ConfigNode::string("dense"));
  const Timer timer;
  const AttentionRule& rule = group.rule < 0 ? no_rule : options_.rules[static_cast<size_t>(group.rule)];
  Call call{.site = site,
            .rule = rule,
            .rule_index = static_cast<size_t>(std::max<int64_t>(group.rule, 0)),
            .heads = group.heads,
            .all_heads = all_heads,
            .q = input.q,
            .k = input.k,
            .v = input.v,
            .key_bias = input.key_bias};
  call.row.kind = kind_name(site.kind);
  call.row.pattern = rule.method;
  call.row.calls = 1;
  call.plan.note = rule.dense_reason(site);
  if (!rule.is_dense() && call.plan.note.empty()) {
    const Timer selection;
    call.orders = &orders_of(call);
    call.plan = plan(call);
    call.row.selection_ms = selection.milliseconds();
  }
  compute(call, out);
  call.row.milliseconds = timer.milliseconds();
  stats_.add(site, call.row);
}

PatternState& AttentionEngine::state_of(Call& call) {
  if (call.state) return *call.state;
  const std::string key = state_key(call.site, call.rule_index);
  if (!states_.contains(key)) {
    call.rule.check_states(call.site, static_cast<int64_t>(call.heads.size()), options_.cache_bytes);
  }
  call.state = &states_[key];
  return *call.state;
}

const AttentionEngine::Orders& AttentionEngine::orders_of(const Call& call) {
  constexpr size_t kMaxOrders = 16;  // a run has one grid and a method few kinds
  const std::string key =
      fmt::format("{}|{}|{}", call.rule_index, grid_text(call.site.grid), call.rule.pattern->order_kind(call.site));
  if (const auto found = orders_.find(key); found != orders_.end()) return found->second;
  if (orders_.size() >= kMaxOrders) orders_.clear();
  const PatternOrders made = call.rule.pattern->order(call.site);
  return orders_.emplace(key, Orders{.asked = made, .used = without_identity(made)}).first->second;
}

PatternCall AttentionEngine::pattern_call(Call& call) {
  const PlanDependence depends = call.rule.pattern->dependence();
  if (!call.pattern_k.defined()) {
    const bool is_read = depends.on_tensors || depends.on_state;
    call.pattern_k = is_read ? key_for_each_head(call.k, call.q.size(1)) : call.k;
  }
  return {.site = call.site,
          .q = call.q,
          .k = call.pattern_k,
          .key_bias = call.key_bias,
          .scorer = *scorer_,
          .state = state_of(call),
          .orders = call.orders->used};
}

AttentionPlan AttentionEngine::plan_now(Call& call) {
  AttentionPlan plan = call.rule.pattern->plan(pattern_call(call));
  if (!plan.layout) return plan;
  ++call.row.plans;
  plan.density = plan.layout->density();
  if (!call.site.plans_always) refuse_empty_rows(call.rule.method, *plan.layout);
  return plan;
}

AttentionPlan AttentionEngine::plan(Call& call) {
  const PlanDependence depends = call.rule.pattern->dependence();
  const AttentionSite& site = call.site;
  const bool is_static = !depends.on_tensors && !depends.on_state;
  const bool may_reuse = is_static || call.rule.shares_branches || call.rule.refresh_every_steps > 0;
  if (!may_reuse || site.plans_always) return plan_now(call);

  std::string key = fmt::format("{}|{}|{}", call.rule_index, grid_text(site.grid), call.heads.size());
  if (depends.on_layer || !is_static) key += fmt::format("|l{}", site.layer);
  if (!is_static) {
    key += fmt::format("|{}.{}", site.sample, site.stage);
    if (!call.rule.shares_branches) key += fmt::format(".{}", static_cast<int>(site.branches[0]));
  }
  const PatternCache::Entry* entry = cache_.find(key);
  if (entry) {
    const bool is_same_call = entry->step == site.step && entry->evaluation == site.evaluation;
    const bool is_other_branch = entry->branch != site.branches[0];
    const int age = site.step - entry->step;
    const bool serves = is_static || (is_same_call && is_other_branch) ||
                        (!depends.on_state && age >= 0 && age < call.rule.refresh_every_steps);
    if (serves) {
      ++cache_.counts().hits;
      if (entry->plan.layout) ++call.row.cache_hits;
      AttentionPlan plan = entry->plan;
      // Only the branch that planned tells the method what came of it.
      plan.wants_lse = plan.wants_lse && !is_other_branch;
      return plan;
    }
    ++cache_.counts().refreshes;
  } else {
    ++cache_.counts().misses;
  }
  AttentionPlan plan = plan_now(call);
  cache_.put(key, {.plan = plan, .step = site.step, .evaluation = site.evaluation, .branch = site.branches[0]});
  return plan;
}

void AttentionEngine::compute(Call& call, at::Tensor& out) {
  const AttentionPlan& plan = call.plan;
  const AttentionProblem problem{.q = call.q,
                                 .k = call.k,
                                 .v = call.v,
                                 .key_bias = call.key_bias,
                                 .scale = scale_of(call.q),
                                 .layout = plan.layout.get(),
                                 .orders = call.orders && plan.layout ? call.orders->used : PatternOrders{},
                                 .pooling = plan.pooling,
                                 .wants_lse = plan.wants_lse || observer_.wants_lse};
  std::string reasons;
  const AttentionBackend& backend = choose_backend(backends_, problem, reasons);
  const Timer timer;
  AttentionOutput output{.out = out, .lse = {}};
  backend.run(problem, output);
  const double kernel_ms = timer.milliseconds();

  LayoutPtr layout = plan.layout;
  if (plan.wants_lse) {
    const Timer selection;
    const LayoutPtr held = call.rule.pattern->observe(pattern_call(call), output.lse);
    if (!layout) layout = held;
    if (held) ++call.row.plans;
    call.row.selection_ms += selection.milliseconds();
  }
  const double dense_pairs =
      static_cast<double>(call.q.size(1)) * static_cast<double>(call.q.size(2)) * static_cast<double>(call.k.size(2));
  call.row.backend = backend.name();
  call.row.note = plan.note;
  call.row.passed_over = reasons;
  call.row.pairs = dense_pairs * plan.density;
  call.row.dense_pairs = dense_pairs;
  if (!observer_.on_call) return;
  observer_.on_call({.site = call.site,
                     .method = call.row.pattern,
                     .kernel = call.row.backend,
                     .heads = call.heads,
                     .all_heads = call.all_heads,
                     .plan = plan,
                     .layout = layout,
                     .orders = call.orders ? call.orders->asked : PatternOrders{},
                     .out = out,
                     .lse = output.lse,
                     .density = plan.density,
                     .selection_ms = call.row.selection_ms,
                     .milliseconds = kernel_ms});
}

void AttentionEngine::run_dense(const AttentionSite& site, const AttentionInput& input, at::Tensor& out) {
  const Timer timer;
  const AttentionProblem problem{
      .q = input.q, .k = input.k, .v = input.v, .key_bias = input.key_bias, .scale = scale_of(input.q)};
  std::string reasons;
  const AttentionBackend& backend = choose_backend(backends_, problem, reasons);
  AttentionOutput output{.out = out, .lse = {}};
  backend.run(problem, output);
  const double pairs = static_cast<double>(input.q.size(0) * input.q.size(1)) * static_cast<double>(input.q.size(2)) *
                       static_cast<double>(input.k.size(2));
  stats_.add(site, {.kind = kind_name(site.kind),
                    .pattern = "dense",
                    .backend = backend.name(),
                    .passed_over = reasons,
                    .calls = 1,
                    .pairs = pairs,
                    .dense_pairs = pairs,
                    .milliseconds = timer.milliseconds()});
}

std::map<std::string, at::Tensor> AttentionEngine::states() const {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [key, state] : states_) {
    for (const auto& [name, tensor] : state.tensors) tensors.emplace(fmt::format("{}/{}", key, name), tensor);
    if (!state.layout) continue;
    for (const auto& [name, tensor] : layout_tensors(*state.layout)) {
      tensors.emplace(fmt::format("{}/layout/{}", key, name), tensor);
    }
  }
  return tensors;
}

void AttentionEngine::set_states(const std::map<std::string, at::Tensor>& tensors) {
  states_.clear();
  std::map<std::string, std::map<std::string, at::Tensor>> layouts;
  for (const auto& [name, tensor] : tensors) {
    const size_t slash = name.find('/');
    STROBE_CHECK(slash != std::string::npos, "attention state '{}' has no '/'", name);
    const std::string key = name.substr(0, slash), rest = name.substr(slash + 1);
    if (rest.starts_with("layout/")) {
      layouts[key].emplace(rest.substr(7), tensor);
    } else {
      states_[key].tensors.emplace(rest, tensor);
    }
  }
  for (const auto& [key, parts] : layouts) states_[key].layout = layout_from_tensors(parts);
}

}  // namespace strobe::attention
