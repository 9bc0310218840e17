#include "pipelines/attention_plan.h"

#include <map>
#include <set>
#include <tuple>

#include "core/torch.h"
// After the precompiled header.
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "core/timer.h"

namespace strobe::pipelines {
namespace {

using attention::AttentionRule;
using attention::AttentionSite;

class Summary {
 public:
  Summary(const std::vector<AttentionRule>& rules, const AttentionSiteSpace& space) : rules_(rules), space_(space) {
    for (const AttentionRule& rule : rules) result_.rules.push_back({.method = rule.method, .options = rule.options});
    sums_.resize(rules.size());
    const attention::RunRange run{
        .steps = static_cast<int64_t>(space.sigmas.size()), .layers = space.layers, .heads = space.heads};
    for (const AttentionRule& rule : rules) rule.check_range(run);
  }

  AttentionPlanSummary run() {
    double density = 0, sites = 0;
    for (size_t step = 0; step < space_.sigmas.size(); ++step) {
      for (int64_t layer = 0; layer < space_.layers; ++layer) {
        const AttentionSite site{.stage = space_.stages[step],
                                 .layer = static_cast<int>(layer),
                                 .layers = static_cast<int>(space_.layers),
                                 .branches = {Branch::kCond},
                                 .step = static_cast<int>(step),
                                 .steps = static_cast<int>(space_.sigmas.size()),
                                 .sigma = space_.sigmas[step],
                                 .grid = space_.grid};
        for (const auto& [rule, heads] : heads_by_rule(site)) {
          density += static_cast<double>(heads) * (rule < 0 ? 1.0 : visit(static_cast<size_t>(rule), site, heads));
          sites += static_cast<double>(heads);
        }
      }
    }
    result_.density = sites > 0 ? density / sites : 1;
    for (size_t i = 0; i < rules_.size(); ++i) finish(result_.rules[i], sums_[i], sites);
    return std::move(result_);
  }

 private:
  struct Sums {
    double all = 0, dense = 0, density = 0;
  };

  std::map<int64_t, int64_t> heads_by_rule(const AttentionSite& site) const {
    std::map<int64_t, int64_t> heads;
    for (int64_t head = 0; head < space_.heads; ++head) {
      int64_t winner = -1;
      for (size_t i = 0; i < rules_.size(); ++i) {
        if (rules_[i].matches(site, head)) winner = static_cast<int64_t>(i);
      }
      ++heads[winner];
    }
    return heads;
  }

  double visit(size_t index, const AttentionSite& site, int64_t heads) {
    const AttentionRule& rule = rules_[index];
    RulePlan& plan = result_.rules[index];
    Sums& sums = sums_[index];
    const auto count = static_cast<double>(heads);
    sums.all += count;
    const std::string reason = rule.dense_reason(site);
    if (rule.is_dense() || !reason.empty()) {
      sums.dense += count;
      auto& reasons = plan.dense_reasons;
      if (!reason.empty() && std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) {
        reasons.push_back(reason);
      }
      return 1;
    }
    look_at(index, site, heads);
    const attention::PlanDependence depends = rule.pattern->dependence();
    double density = 1;
    if (!depends.on_tensors && !depends.on_state) {
      density = planned_density(index, depends.on_layer ? site.layer : 0, site);
    } else if (const auto nominal = rule.pattern->nominal_density(site, heads)) {
      density = nominal->density;
      plan.is_bound = plan.is_bound || nominal->is_bound;
    } else {
      plan.is_known = false;
    }
    sums.density += density * count;
    return density;
  }

  // Once for a rule what its method says of the run; at every site what it remembers.
  void look_at(size_t index, const AttentionSite& site, int64_t heads) {
    const AttentionRule& rule = rules_[index];
    if (sums_[index].all == sums_[index].dense + static_cast<double>(heads)) {
      if (std::string text = rule.check_block(site.grid.tokens()); !text.empty()) {
        result_.warnings.push_back(std::move(text));
      }
      if (std::string text = rule.pattern->check_run(site); !text.empty()) result_.warnings.push_back(std::move(text));
    }
    rule.check_states(site, heads, space_.cache_bytes);
    if (!states_.insert({index, site.stage, site.layer}).second) return;
    result_.state_bytes += rule.pattern->state_bytes(site.grid, heads) * (rule.shares_branches ? 1 : space_.branches);
  }

  double planned_density(size_t index, int layer, const AttentionSite& site) {
    const auto found = densities_.find({index, layer});
    if (found != densities_.end()) return found->second;
    RulePlan& plan = result_.rules[index];
    const attention::TorchScorer scorer;
    attention::PatternState state;
    const at::Tensor none;
    const Timer timer;
    (void)rules_[index].pattern->order(site);
    const attention::AttentionPlan made = rules_[index].pattern->plan(
        {.site = site, .q = none, .k = none, .key_bias = none, .scorer = scorer, .state = state});
    plan.plan_ms = timer.milliseconds();
    double density = 1;
    if (made.layout) {
      attention::refuse_empty_rows(rules_[index].method, *made.layout);
      density = made.layout->density();
      plan.query_blocks = made.layout->query_blocks();
      plan.key_blocks = made.layout->key_blocks();
      plan.kept_blocks = made.layout->kept_blocks() / made.layout->heads();
    } else if (!made.note.empty()) {
      plan.dense_reasons.push_back(made.note);
    }
    densities_[{index, layer}] = density;
    return density;
  }

  void finish(RulePlan& plan, const Sums& sums, double sites) {
    plan.share = sites > 0 ? sums.all / sites : 0;
    plan.dense_share = sums.all > 0 ? sums.dense / sums.all : 0;
    if (sums.all > sums.dense) plan.density = sums.density / (sums.all - sums.dense);
    if (plan.share <= 0) {
      result_.warnings.push_back(
          fmt::format("--attention {}: no step, layer and head of this run follows this rule", plan.method));
      return;
    }
    result_.is_known = result_.is_known && plan.is_known;
    result_.is_bound = result_.is_bound || plan.is_bound;
  }

  const std::vector<AttentionRule>& rules_;
  const AttentionSiteSpace& space_;
  std::vector<Sums> sums_;
  std::map<std::pair<size_t, int>, double> densities_;
  std::set<std::tuple<size_t, int, int>> states_;  // rule, expert, layer
  AttentionPlanSummary result_;
};

}  // namespace

bool AttentionPlanSummary::is_sparse() const {
  return std::any_of(rules.begin(), rules.end(),
                     [](const RulePlan& rule) { return rule.share > 0 && rule.dense_share < 1; });
}

AttentionPlanSummary plan_attention(const std::vector<AttentionRule>& rules, const AttentionSiteSpace& space) {
  return Summary(rules, space).run();
}

}  // namespace strobe::pipelines
