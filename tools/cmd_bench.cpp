// strobe bench attention: what attention costs on this machine, interleaved, as shares of its multiply-add peak.
#include <fmt/ranges.h>

#include <cstdio>
#include <random>

#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "attention/kernel_call.h"
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "core/timer.h"
#include "kernels/common/fma_peak.h"
#include "tools/app.h"
#include "tools/pattern_input.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

using attention::AttentionEngine;
using attention::AttentionSite;

// Steps of a run of 50 in which every method is past its dense start and before its second search.
constexpr int kSteps = 50, kFirstStep = 16, kUsableSteps = 13;

struct Shape {
  int64_t tokens = 0, heads = 0, head_dim = 0;
  at::ScalarType dtype = at::kFloat;

  double dense_flops() const {
    return 4.0 * static_cast<double>(heads * head_dim) * static_cast<double>(tokens) * static_cast<double>(tokens);
  }
};

struct Variant {
  std::string name;  // "dense", "block 64", "sdpa", "radial"
  int64_t block_size = 0;
  double density_asked = 1;
  bool is_density_asked = true;
  LayoutPtr layout;                         // of random layouts
  std::unique_ptr<AttentionEngine> engine;  // of methods
  std::string kernel, note;
  double density = 1;
  double first_selection_ms = 0;  // of the call that searches or plans first
  std::vector<double> ms, selection_ms, shares, to_dense, to_sdpa, peaks;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (at - static_cast<double>(low)) * (values[high] - values[low]);
}

std::vector<double> numbers(const ConfigNode& node, double min, double max, const std::string& expected) {
  std::vector<double> values;
  const std::string& text = node.as_string();
  size_t first = 0;
  while (true) {
    const size_t comma = text.find(',', first);
    const std::string piece = text.substr(first, comma - first);
    char* end = nullptr;
    const double value = std::strtod(piece.c_str(), &end);
    if (piece.empty() || *end != '\0' || !(value >= min) || !(value <= max)) {
      node.fail(fmt::format("expected {}, got '{}'", expected, text));
    }
    values.push_back(value);
    if (comma == std::string::npos) return values;
    first = comma + 1;
  }
}

// Every block with this probability, one a row at least.
LayoutPtr random_layout(const Shape& shape, int64_t block, double density, uint64_t seed) {
  const auto offsets = BlockLayout::uniform_offsets(shape.tokens, block);
  auto layout = std::make_shared<BlockLayout>(shape.heads, offsets, offsets);
  std::mt19937_64 random(seed);
  std::bernoulli_distribution keeps(density);
  for (int64_t h = 0; h < shape.heads; ++h) {
    for (int64_t m = 0; m < layout->query_blocks(); ++m) {
      bool is_empty = true;
      for (int64_t k = 0; k < layout->key_blocks(); ++k) {
        if (!keeps(random)) continue;
        layout->set(h, m, k);
        is_empty = false;
      }
      if (is_empty) layout->set(h, m, static_cast<int64_t>(random() % static_cast<uint64_t>(layout->key_blocks())));
    }
  }
  return layout;
}

class Bench {
 public:
  explicit Bench(const ConfigNode& effective) : effective_(effective), device_(device_of(effective)) {
    if (!device_.device.is_cpu()) throw UnsupportedError("bench attention: CPU kernels only");
    shape_ = {.tokens = effective.get_integer("tokens", 8192),
              .heads = effective.get_integer("heads", 2),
              .head_dim = effective.get_integer("head_dim", 128),
              .dtype = device_.dtype};
    rounds_ = static_cast<int>(effective.get_integer("rounds", 7));
    backends_ = attention::make_backends(effective.get_string("attention_backend", "auto"));
    make_data();
    make_variants();
  }

  void run() {
    for (Variant& variant : variants_) warm_up(variant);
    for (int round = 0; round < rounds_; ++round) {
      for (Variant& variant : variants_) measure(variant, round);
      for (Variant& variant : variants_) {
        variant.to_dense.push_back(variant.ms.back() / find("dense").ms.back());
        if (has_sdpa_) variant.to_sdpa.push_back(variant.ms.back() / find("sdpa").ms.back());
      }
      if (is_interrupted()) throw InterruptedError("interrupted");
      log_info("round {}/{}", round + 1, rounds_);
    }
  }

  std::string table() const;
  ConfigNode rows() const;

 private:
  void make_data() {
    at::manual_seed(0);
    // Several sets: one small set would stay in the cache from call to call.
    constexpr int kSets = 2;
    const std::vector<int64_t> sizes = {1, shape_.tokens, shape_.heads, shape_.head_dim};
    for (int i = 0; i < kSets; ++i) {
      std::array<at::Tensor, 3> set;
      for (at::Tensor& tensor : set) tensor = at::randn(sizes).to(shape_.dtype).transpose(1, 2);
      data_.push_back(std::move(set));
    }
  }

  void make_variants() {
    variants_.push_back({.name = "dense"});
    for (const double block : numbers(effective_.at("block_size"), 1, 1 << 20, "block sizes such as 64,128")) {
      for (const double density : numbers(effective_.at("density"), 1e-6, 1, "densities in (0, 1] such as 0.05,0.1")) {
        if (density == 1) continue;  // the dense row
        const auto size = static_cast<int64_t>(block);
        if (size > shape_.tokens) {
          throw ConfigError(
              fmt::format("--block-size {}: larger than the {} tokens: nothing can be dropped", size, shape_.tokens));
        }
        LayoutPtr layout = random_layout(shape_, size, density, variants_.size());
        variants_.push_back({.name = "random blocks", .block_size = size, .density_asked = density, .layout = layout});
        variants_.back().density = layout->density();
      }
    }
    if (const ConfigNode* methods = effective_.find("attention")) {
      for (const ConfigNode& method : methods->as_list()) add_method(method.as_string());
    }
    has_sdpa_ = effective_.get_string("against", "") == "sdpa";
    if (has_sdpa_) variants_.push_back({.name = "sdpa", .kernel = "torch_sdpa"});
  }

  void add_method(const std::string& text) {
    attention::AttentionRule rule = attention::make_rule(ConfigNode::string(text));
    if (rule.is_dense()) return;
    if (!rule.steps.is_all() || !rule.layers.is_all() || !rule.heads.is_all() || rule.sigma_max) {
      throw ConfigError(fmt::format(
          "--attention {}: steps=, layers=, heads= and sigma_max= have no place here: every call is measured", text));
    }
    if (const std::string said = rule.check_block(shape_.tokens); !said.empty()) log_warning("{}", said);
    Variant variant{.name = text, .is_density_asked = false};
    attention::EngineOptions options{.rules = {}, .backend = effective_.get_string("attention_backend", "auto")};
    options.rules.push_back(std::move(rule));
    variant.engine = std::make_unique<AttentionEngine>(std::move(options));
    variants_.push_back(std::move(variant));
  }

  AttentionSite site(int step) const {
    AttentionSite site = pattern_site(effective_, shape_.tokens);
    site.plans_always = false;
    site.layer = 3;
    site.layers = 6;
    site.step = step;
    site.steps = kSteps;
    return site;
  }

  void warm_up(Variant& variant) {
    call(variant, 0);
    if (variant.engine) {
      const auto& stats = variant.engine->stats().rows();
      variant.first_selection_ms = stats.front().selection_ms;
      variant.engine->stats().clear();
    }
    call(variant, 1);
  }

  // Milliseconds of the call.
  double call(Variant& variant, int round) {
    const auto& [q, k, v] = data_[static_cast<size_t>(round) % data_.size()];
    const double scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
    if (variant.name == "sdpa") {
      const Timer timer;
      at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, scale);
      return timer.milliseconds();
    }
    if (variant.engine) {
      const AttentionSite where = site(kFirstStep + round % kUsableSteps);
      const Timer timer;
      (*variant.engine)(where, {.q = q, .k = k, .v = v, .key_bias = {}});
      return timer.milliseconds();
    }
    const attention::AttentionProblem problem{.q = q, .k = k, .v = v, .scale = scale, .layout = variant.layout.get()};
    std::string reasons;
    const attention::AttentionBackend& backend = attention::choose_backend(backends_, problem, reasons);
    variant.kernel = backend.name();
    attention::AttentionOutput output;
    const Timer timer;
    backend.run(problem, output);
    return timer.milliseconds();
  }

  void measure(Variant& variant, int round) {
    const auto dtype = shape_.dtype == at::kFloat ? kernels::ScalarType::kFloat32 : kernels::ScalarType::kBFloat16;
    const kernels::FmaLoop& loop = kernels::widest_fma_loop(dtype);
    constexpr int kPeakRounds = 2;
    const double before = kernels::measure_fma_peak(loop, attention::torch_parallel(), kPeakRounds);
    const double ms = call(variant, round);
    const double after = kernels::measure_fma_peak(loop, attention::torch_parallel(), kPeakRounds);
    double selection_ms = 0;
    if (variant.engine) {
      const attention::AttentionRow& row = variant.engine->stats().rows().back();
      variant.kernel = row.backend;
      variant.note = row.note;
      variant.density = row.density();
      selection_ms = row.selection_ms;
      variant.engine->stats().clear();
    }
    variant.ms.push_back(ms);
    variant.selection_ms.push_back(selection_ms);
    variant.peaks.push_back((before + after) / 2);
    variant.shares.push_back(useful_flops(variant) / (ms / 1e3) / variant.peaks.back());
  }

  double useful_flops(const Variant& variant) const { return shape_.dense_flops() * variant.density; }

  const Variant& find(const std::string& name) const {
    for (const Variant& variant : variants_) {
      if (variant.name == name) return variant;
    }
    return variants_.front();
  }

  // A method whose own rule made the call dense is no measure of the method.
  static bool ran_as_asked(const Variant& variant) { return !variant.engine || variant.note.empty(); }

  const ConfigNode& effective_;
  pipelines::Device device_;
  Shape shape_;
  int rounds_ = 7;
  bool has_sdpa_ = false;
  attention::BackendList backends_;
  std::vector<std::array<at::Tensor, 3>> data_;
  std::vector<Variant> variants_;
};

std::string spread(const std::vector<double>& values) {
  return fmt::format("{:.3f} ({:.3f}-{:.3f})", quantile(values, 0.5), quantile(values, 0.1), quantile(values, 0.9));
}

std::string Bench::table() const {
  std::string text = fmt::format(
      "{} tokens, {} heads of {}, {}, {} thread{}; {} rounds, medians (10-90 %)\n"
      "{:<28} {:>5} {:>7} {:>9} {:>9} {:>6} {:>6}  {:<22} {:<22} {:>9}\n",
      shape_.tokens, shape_.heads, shape_.head_dim, shape_.dtype == at::kFloat ? "fp32" : "bf16", at::get_num_threads(),
      at::get_num_threads() == 1 ? "" : "s", rounds_, "variant", "block", "density", "ms", "GFLOP/s", "share", "best",
      "time / dense", has_sdpa_ ? "time / sdpa" : "", "select ms");
  for (const Variant& v : variants_) {
    const double ms = quantile(v.ms, 0.5);
    const std::string name = v.name.size() > 28 ? v.name.substr(0, 25) + "..." : v.name;
    text += fmt::format("{:<28} {:>5} {:>7.4f} {:>9.2f} {:>9.1f} {:>6.3f} {:>6.3f}  ", name,
                        v.block_size == 0 ? "" : std::to_string(v.block_size), v.density, ms,
                        useful_flops(v) / ms / 1e6, quantile(v.shares, 0.5), quantile(v.shares, 1));
    if (ran_as_asked(v)) {
      text += fmt::format("{:<22} {:<22} ", spread(v.to_dense), has_sdpa_ ? spread(v.to_sdpa) : "");
    } else {
      text += fmt::format("{:<45} ", "not as asked: " + v.note);
    }
    text += fmt::format("{:>9.3f}\n", quantile(v.selection_ms, 0.5));
    if (v.engine) {
      text += fmt::format("  {} by {}; first plan {:.2f} ms, selection {:.2f} % of a dense call\n", v.name, v.kernel,
                          v.first_selection_ms, 100 * quantile(v.selection_ms, 0.5) / quantile(find("dense").ms, 0.5));
    }
  }
  return text;
}

ConfigNode Bench::rows() const {
  const auto number = [](double value) { return ConfigNode::number(value); };
  const auto integer = [](int64_t value) { return ConfigNode::integer(value); };
  const auto ratio = [&](const Variant& v, const std::vector<double>& values) {
    return values.empty() || !ran_as_asked(v) ? ConfigNode::null() : number(quantile(values, 0.5));
  };
  ConfigNode::List rows;
  for (const Variant& v : variants_) {
    const double ms = quantile(v.ms, 0.5);
    rows.push_back(
        ConfigNode::map({{"variant", ConfigNode::string(v.name)},
                         {"kernel", ConfigNode::string(v.kernel)},
                         {"note", ConfigNode::string(v.note)},
                         {"head_dim", integer(shape_.head_dim)},
                         {"tokens", integer(shape_.tokens)},
                         {"heads", integer(shape_.heads)},
                         {"block_size", integer(v.block_size)},
                         {"density_asked", v.is_density_asked ? number(v.density_asked) : ConfigNode::null()},
                         {"density_delivered", number(v.density)},
                         {"dtype", ConfigNode::string(shape_.dtype == at::kFloat ? "fp32" : "bf16")},
                         {"threads", integer(at::get_num_threads())},
                         {"rounds", integer(rounds_)},
                         {"ms_median", number(ms)},
                         {"ms_p10", number(quantile(v.ms, 0.1))},
                         {"ms_p90", number(quantile(v.ms, 0.9))},
                         {"useful_gflops", number(useful_flops(v) / ms / 1e6)},
                         {"peak_gflops", number(quantile(v.peaks, 0.5) / 1e9)},
                         {"share_of_peak", number(quantile(v.shares, 0.5))},
                         {"share_of_peak_best", number(quantile(v.shares, 1))},
                         {"ratio_to_dense", ratio(v, v.to_dense)},
                         {"ratio_to_dense_p10", ratio(v, {quantile(v.to_dense, 0.1)})},
                         {"ratio_to_dense_p90", ratio(v, {quantile(v.to_dense, 0.9)})},
                         {"ratio_to_sdpa", ratio(v, v.to_sdpa)},
                         {"selection_ms", number(quantile(v.selection_ms, 0.5))},
                         {"first_selection_ms", number(v.first_selection_ms)}}));
  }
  return ConfigNode::list(std::move(rows));
}

}  // namespace

int run_bench_attention(const Invocation& invocation) {
  at::NoGradGuard no_grad;
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const std::string file = effective.get_string("json", "");
  if (!file.empty() && file != "-") pipelines::check_output_file(file, effective.get_bool("overwrite", false));
  Bench bench(effective);
  bench.run();
  if (!file.empty()) {
    const std::string json = weights::to_json(ConfigNode::map({{"schema", ConfigNode::integer(1)},
                                                               {"build", build_facts()},
                                                               {"machine", machine_facts()},
                                                               {"rows", bench.rows()}})) +
                             "\n";
    if (file == "-") {
      std::fputs(json.c_str(), stdout);
      return 0;
    }
    write_file(file, json);
  }
  std::fputs(bench.table().c_str(), stdout);
  return 0;
}

}  // namespace strobe::tools
