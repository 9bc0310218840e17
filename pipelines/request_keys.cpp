// From the effective map of settings to a request.
#include "core/error.h"
#include "pipelines/request.h"

namespace strobe::pipelines {
namespace {

template <class T>
std::optional<T> optional_integer(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return static_cast<T>(node->as_integer());
}

std::optional<double> optional_number(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return node->as_number();
}

std::optional<std::string> optional_text(const ConfigNode& map, const char* key) {
  const ConfigNode* node = map.find(key);
  if (!node) return {};
  return node->as_string();
}

}  // namespace

Request to_request(const ConfigNode& effective) {
  Request r;
  if (const ConfigNode* prompts = effective.find("prompt")) {
    const ConfigNode::List& list = prompts->as_list();
    if (list.size() > 1) prompts->fail(fmt::format("expected one prompt for one clip, got {}", list.size()));
    if (!list.empty()) r.prompt = list[0].as_string();
  }
  r.negative_prompt = optional_text(effective, "negative_prompt");
  r.num_frames = optional_integer<int64_t>(effective, "num_frames");
  r.height = optional_integer<int64_t>(effective, "height");
  r.width = optional_integer<int64_t>(effective, "width");
  r.fps = optional_integer<int64_t>(effective, "fps");
  r.num_inference_steps = optional_integer<int>(effective, "num_inference_steps");
  r.guidance_scale = optional_number(effective, "guidance_scale");
  r.guidance_scale_2 = optional_number(effective, "guidance_scale_2");
  r.flow_shift = optional_number(effective, "flow_shift");
  r.scheduler = optional_text(effective, "scheduler");
  r.sigma_spacing = effective.get_string("sigma_spacing", r.sigma_spacing);
  const int64_t seed = effective.get_integer("seed", 0);
  if (seed < 0) effective.at("seed").fail("a seed must be drawn first");
  r.seed = static_cast<uint64_t>(seed);
  if (const ConfigNode* rules = effective.find("attention")) {
    for (const ConfigNode& rule : rules->as_list()) r.attention.push_back(rule.as_string());
  }
  r.pattern_cache_mib = effective.get_integer("pattern_cache_mib", r.pattern_cache_mib);
  r.attention_backend = effective.get_string("attention_backend", r.attention_backend);
  r.is_strict = effective.get_bool("strict", false);
  r.uses_vae_tiling = effective.get_bool("vae_tiling", false);
  r.output = effective.get_string("output", "");
  r.init_latents = effective.get_string("init_latents", "");
  r.save_latents = effective.get_string("save_latents", "");
  r.save_frames = effective.get_string("save_frames", "");
  r.dump = effective.get_string("dump", "");
  r.codec = effective.get_string("codec", "");
  r.pix_fmt = effective.get_string("pix_fmt", "");
  r.crf = static_cast<int>(effective.get_integer("crf", -1));
  if (const ConfigNode* loras = effective.find("lora")) {
    for (const ConfigNode& lora : loras->as_list()) r.loras.push_back(parse_lora(lora.as_string()));
  }
  r.is_lossless = effective.get_bool("lossless", false);
  r.may_overwrite = effective.get_bool("overwrite", false);
  return r;
}

}  // namespace strobe::pipelines
