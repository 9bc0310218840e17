#include "pipelines/side_car.h"

#include "core/torch.h"
// After the precompiled header.
#include "config/explain.h"
#include "core/error.h"
#include "pipelines/fingerprint.h"
#include "pipelines/output_names.h"
#include "video/sha256.h"
#include "weights/json.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;

ConfigNode text(const std::string& value) { return ConfigNode::string(value); }
ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }
ConfigNode number(double value) { return ConfigNode::number(value); }

// Four digits behind the point: times and densities, not settings.
ConfigNode rounded(double value) { return number(std::round(value * 1e4) / 1e4); }

std::string dtype_name(at::ScalarType dtype) { return dtype == at::kFloat ? "fp32" : "bf16"; }

std::string lora_text(const weights::Lora& lora, const std::string& name) {
  return fmt::format("{}:{}", name, lora.weight);
}

// Layers that follow each other with one method, kernel and density, and steps with the same runs of layers.
struct SiteRun {
  int first_layer = 0, last_layer = 0;
  std::string method, kernel;
  double density = 1;
  int64_t plans = 0, cache_hits = 0;
  double selection_ms = 0;

  bool continues(const SiteRun& next) const {
    return method == next.method && kernel == next.kernel && density == next.density;
  }
};

std::vector<SiteRun> runs_of_layers(const std::map<int, const attention::SiteRow*>& layers) {
  std::vector<SiteRun> runs;
  for (const auto& [layer, row] : layers) {
    SiteRun one{.first_layer = layer,
                .last_layer = layer,
                .method = row->method,
                .kernel = row->kernel,
                .density = std::round(row->density() * 1e4) / 1e4,
                .plans = row->plans,
                .cache_hits = row->cache_hits,
                .selection_ms = row->selection_ms};
    if (runs.empty() || runs.back().last_layer != layer - 1 || !runs.back().continues(one)) {
      runs.push_back(std::move(one));
      continue;
    }
    SiteRun& last = runs.back();
    last.last_layer = layer;
    last.plans += one.plans;
    last.cache_hits += one.cache_hits;
    last.selection_ms += one.selection_ms;
  }
  return runs;
}

ConfigNode site_runs(const std::vector<attention::SiteRow>& sites) {
  std::map<int, std::map<int, const attention::SiteRow*>> by_step;
  for (const attention::SiteRow& site : sites) by_step[site.step][site.layer] = &site;
  ConfigNode::List out;
  std::vector<SiteRun> last;
  int first_step = 0, last_step = -1;
  const auto flush = [&] {
    for (const SiteRun& run : last) {
      out.push_back(ConfigNode::map({{"steps", ConfigNode::list({integer(first_step), integer(last_step)})},
                                     {"layers", ConfigNode::list({integer(run.first_layer), integer(run.last_layer)})},
                                     {"method", text(run.method)},
                                     {"kernel", text(run.kernel)},
                                     {"density", rounded(run.density)},
                                     {"plans", integer(run.plans)},
                                     {"cache_hits", integer(run.cache_hits)},
                                     {"selection_ms", rounded(run.selection_ms)}}));
    }
  };
  const auto is_same = [](const SiteRun& a, const SiteRun& b) {
    return a.first_layer == b.first_layer && a.last_layer == b.last_layer && a.continues(b);
  };
  for (const auto& [step, layers] : by_step) {
    std::vector<SiteRun> runs = runs_of_layers(layers);
    if (step == last_step + 1 && std::equal(runs.begin(), runs.end(), last.begin(), last.end(), is_same)) {
      for (size_t i = 0; i < runs.size(); ++i) {
        last[i].plans += runs[i].plans;
        last[i].cache_hits += runs[i].cache_hits;
        last[i].selection_ms += runs[i].selection_ms;
      }
    } else {
      flush();
      last = std::move(runs);
      first_step = step;
    }
    last_step = step;
  }
  flush();
  return ConfigNode::list(std::move(out));
}

ConfigNode attention_rows(const Result& result) {
  ConfigNode::List rows;
  for (const attention::AttentionRow& row : result.attention) {
    rows.push_back(ConfigNode::map({{"kind", text(row.kind)},
                                    {"method", text(row.pattern)},
                                    {"kernel", text(row.backend)},
                                    {"note", text(row.note)},
                                    {"passed_over", text(row.passed_over)},
                                    {"calls", integer(row.calls)},
                                    {"density", rounded(row.density())},
                                    {"plans", integer(row.plans)},
                                    {"cache_hits", integer(row.cache_hits)},
                                    {"selection_ms", rounded(row.selection_ms)},
                                    {"ms", rounded(row.milliseconds)}}));
  }
  return ConfigNode::list(std::move(rows));
}

// Every rule with all of its options, so that a later build with other defaults makes the same clip.
ConfigNode attention_settings(const Request& request) {
  ConfigNode::List rules;
  for (const attention::AttentionRule& rule : attention_rules(request)) {
    rules.push_back(text(rule.is_dense() ? "dense" : rule.method + ":" + rule.options));
  }
  if (rules.empty()) rules.push_back(text("dense"));
  return ConfigNode::list(std::move(rules));
}

ConfigNode lora_rows(const Result& result) {
  ConfigNode::List rows;
  for (const weights::LoraUse& use : result.loras) {
    rows.push_back(ConfigNode::map({{"file", text(use.path.string())},
                                    {"weight", number(use.weight)},
                                    {"expert", integer(use.stage)},
                                    {"modules", integer(use.modules)},
                                    {"unmatched_keys", integer(static_cast<int64_t>(use.unmatched.size()))}}));
  }
  return ConfigNode::list(std::move(rows));
}

ConfigNode what_ran(const SideCarSource& s) {
  return ConfigNode::map(
      {{"device", text(s.facts.device.device.str())},
       {"dtype", text(dtype_name(s.facts.device.dtype))},
       {"threads", integer(at::get_num_threads())},
       {"offload", text(offload_name(s.facts.offload))},
       {"sampler", text(s.job.scheduler)},
       {"guidance", text(s.job.request.guider)},
       {"forwards", integer(s.result.forwards)},
       {"first_step_of_this_process", integer(s.result.first_step)},
       {"attention", attention_rows(s.result)},
       {"attention_by_step_and_layer", site_runs(s.result.sites)},
       {"pattern_cache", ConfigNode::map({{"hits", integer(s.result.pattern_cache.hits)},
                                          {"misses", integer(s.result.pattern_cache.misses)},
                                          {"refreshes", integer(s.result.pattern_cache.refreshes)},
                                          {"evictions", integer(s.result.pattern_cache.evictions)}})},
       {"fallbacks", ConfigNode::list()},
       {"loras", lora_rows(s.result)},
       {"encoder", text(s.result.encoder)}});
}

ConfigNode string_map(const std::map<std::string, std::string>& values) {
  ConfigNode map = ConfigNode::map();
  for (const auto& [name, value] : values) map.set(name, text(value));
  return map;
}

ConfigNode times(const StageTimes& t) {
  return ConfigNode::map({{"load", rounded(t.load_ms)},
                          {"text", rounded(t.text_ms)},
                          {"denoise", rounded(t.denoise_ms)},
                          {"decode", rounded(t.decode_ms)},
                          {"encode", rounded(t.encode_ms)},
                          {"total", rounded(t.total_ms)}});
}

bool is_frames(const fs::path& output) { return !output.has_filename() || output.extension() == ".png"; }

ConfigNode load_side_car(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  try {
    ConfigNode node = weights::load_json(path);
    if (node.get_string("kind", "") == kSideCarKind) return node;
  } catch (const Error&) {
    // Somebody else's file.
  }
  return {};
}

// What a side-car calls its clip: "a.mp4", "frames/".
std::string own_name(const fs::path& output) {
  return output.has_filename() ? output.filename().string() : clip_stem(output).filename().string() + "/";
}

bool is_of(const ConfigNode& side_car, const fs::path& output) {
  return side_car.is_map() && side_car.get_string("output", "") == own_name(output);
}

std::pair<fs::path, fs::path> side_car_names(const fs::path& output) {
  const fs::path stem = clip_stem(output);
  fs::path plain = stem, whole = stem;
  if (is_frames(output)) {
    plain += ".json";
    whole += ".frames.json";
  } else {
    plain.replace_extension(".json");
    whole += ".json";
  }
  return {plain, whole};
}

}  // namespace

void add_fingerprints(const models::ModelFolder& folder, RunFacts& facts) {
  for (const models::PartPath& part : folder.part_paths()) facts.weights[part.name] = fingerprint(part.path);
}

void add_fingerprints(const Job& job, RunFacts& facts) {
  const auto add = [&](const fs::path& path) {
    if (!path.empty() && !facts.files.contains(path.string())) facts.files[path.string()] = fingerprint(path);
  };
  for (const weights::Lora& lora : job.request.loras) add(lora.path);
  add(job.request.init_latents);
}

ConfigNode decided_settings(const Job& job, const RunFacts& facts) {
  const Request& r = job.request;
  ConfigNode map = ConfigNode::map({{"prompt", text(r.prompt)},
                                    {"negative_prompt", text(job.negative_prompt)},
                                    {"num_frames", integer(job.num_frames)},
                                    {"height", integer(job.height)},
                                    {"width", integer(job.width)},
                                    {"fps", integer(job.fps)},
                                    {"seed", integer(static_cast<int64_t>(r.seed))},
                                    {"num_inference_steps", integer(job.num_inference_steps)},
                                    {"guidance_scale", number(job.guidance_scale)},
                                    {"flow_shift", number(job.flow_shift)},
                                    {"scheduler", text(job.scheduler)},
                                    {"sigma_spacing", text(r.sigma_spacing)},
                                    {"attention", attention_settings(r)},
                                    {"attention_backend", text(r.attention_backend)},
                                    {"vae_tiling", ConfigNode::boolean(r.uses_vae_tiling)},
                                    {"lossless", ConfigNode::boolean(r.is_lossless)},
                                    {"device", text(facts.device.device.is_cpu() ? "cpu" : "cuda")},
                                    {"dtype", text(dtype_name(facts.device.dtype))}});
  if (job.has_second_scale) map.set("guidance_scale_2", number(job.guidance_scale_2));
  if (!r.codec.empty()) map.set("codec", text(r.codec));
  if (r.crf >= 0) map.set("crf", integer(r.crf));
  if (!r.pix_fmt.empty()) map.set("pix_fmt", text(r.pix_fmt));
  if (!r.init_latents.empty()) map.set("init_latents", text(r.init_latents.string()));
  if (!facts.model.empty()) map.set("model", text(facts.model));
  ConfigNode::List loras;
  for (const weights::Lora& lora : r.loras) loras.push_back(text(lora_text(lora, lora.path.string())));
  if (!loras.empty()) map.set("lora", ConfigNode::list(std::move(loras)));
  return map;
}

std::string request_hash(const Job& job, const RunFacts& facts) {
  // Content for paths.
  ConfigNode settings = decided_settings(job, facts);
  settings.set("model", string_map(facts.weights));
  if (!job.request.init_latents.empty()) {
    settings.set("init_latents", text(facts.files.at(job.request.init_latents.string())));
  }
  ConfigNode::List loras;
  for (const weights::Lora& lora : job.request.loras) {
    loras.push_back(text(lora_text(lora, facts.files.at(lora.path.string()))));
  }
  settings.set("lora", ConfigNode::list(std::move(loras)));
  const fs::path& output = job.request.output;
  settings.set("container", text(is_frames(output) ? ".png" : output.extension().string()));
  return video::sha256(weights::to_json(settings, /*indent=*/-1));
}

std::string side_car_text(const SideCarSource& s) {
  ConfigNode::List adjustments;
  for (const std::string& line : s.job.adjustments) adjustments.push_back(text(line));
  std::error_code error;
  const ConfigNode node = ConfigNode::map(
      {{"schema", integer(1)},
       {"kind", text(kSideCarKind)},
       {"request_hash", text(s.request_hash)},
       {"output", text(own_name(s.job.request.output))},
       {"request", decided_settings(s.job, s.facts)},
       {"config", config::with_origins(s.effective)},
       {"place", text(s.place)},
       {"adjustments", ConfigNode::list(std::move(adjustments))},
       {"model", ConfigNode::map({{"name", text(s.info.name)},
                                  {"family", text(s.info.family)},
                                  {"folder", text(fs::absolute(s.info.folder, error).lexically_normal().string())},
                                  {"note", text(s.info.note)},
                                  {"weights", string_map(s.facts.weights)}})},
       {"files", string_map(s.facts.files)},
       {"ran", what_ran(s)},
       {"times_ms", times(s.result.times)},
       {"peak_memory_bytes", integer(s.result.peak_memory_bytes)},
       {"frames", integer(s.result.frames)},
       {"frame_sha256", text(s.result.frame_sha256)},
       {"build", s.facts.build},
       {"machine", s.facts.machine}});
  return weights::to_json(node) + "\n";
}

fs::path side_car_path(const fs::path& output) {
  const auto [plain, whole] = side_car_names(output);
  std::error_code error;
  return !fs::exists(plain, error) || is_of(load_side_car(plain), output) ? plain : whole;
}

ConfigNode find_side_car(const fs::path& output) {
  const auto [plain, whole] = side_car_names(output);
  for (const fs::path& path : {plain, whole}) {
    ConfigNode node = load_side_car(path);
    if (is_of(node, output)) return node;
  }
  return {};
}

}  // namespace strobe::pipelines
