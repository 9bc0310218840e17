#include "models/wan/wan_setup.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/vae/wan_vae_work.h"

namespace strobe::models {
namespace {

void read_scheduler(const std::optional<ConfigNode>& scheduler, ModelInfo& info) {
  if (!scheduler) {
    info.defaults.flow_shift = 5.0;  // the original repositories' default
    return;
  }
  const ConfigNode& node = *scheduler;
  const std::string type = node.get_string("_class_name", "UniPCMultistepScheduler");
  if (type == "FlowMatchEulerDiscreteScheduler") {
    info.defaults.scheduler = "euler";
    info.defaults.flow_shift = node.get_number("shift", 1.0);
    if (node.get_bool("use_dynamic_shifting", false))
      node.at("use_dynamic_shifting").fail("only a static shift is supported");
    return;
  }
  if (type != "UniPCMultistepScheduler") {
    node.fail(fmt::format(
        "scheduler '{}' is not supported; known: UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler", type));
  }
  info.defaults.flow_shift = node.get_number("flow_shift", 1.0);
  // The sampler is the one that every published Wan file asks for; any other setting would change the numbers.
  const auto expect = [&](const char* key, const std::string& wanted) {
    if (node.find(key) && node.get_string(key, wanted) != wanted)
      node.at(key).fail(fmt::format("only '{}' is supported", wanted));
  };
  expect("prediction_type", "flow_prediction");
  expect("solver_type", "bh2");
  expect("final_sigmas_type", "zero");
  if (node.get_integer("solver_order", 2) != 2) node.at("solver_order").fail("only order 2 is supported");
  if (!node.get_bool("use_flow_sigmas", true)) node.at("use_flow_sigmas").fail("only flow sigmas are supported");
  if (!node.get_bool("predict_x0", true)) node.at("predict_x0").fail("only true is supported");
  if (!node.get_bool("lower_order_final", true))
    node.at("lower_order_final").fail("only true is supported with a final sigma of zero");
}

void read_defaults(const ConfigNode& index, ModelInfo& info) {
  ModelDefaults& d = info.defaults;
  if (info.stages == 2) {
    d.height = 720, d.width = 1280, d.num_inference_steps = 40, d.guidance_scale = 4.0, d.guidance_scale_2 = 3.0;
  } else if (info.has_token_timesteps) {
    d.height = 704, d.width = 1280, d.num_frames = 121, d.fps = 24;
  }
  // Our own bundles say what they were made for; diffusers skips keys that begin with an underscore.
  if (const ConfigNode* own = index.find("_strobe")) {
    d.num_frames = own->get_integer("num_frames", d.num_frames);
    d.height = own->get_integer("height", d.height);
    d.width = own->get_integer("width", d.width);
    d.fps = own->get_integer("fps", d.fps);
    d.num_inference_steps = static_cast<int>(own->get_integer("num_inference_steps", d.num_inference_steps));
    d.guidance_scale = own->get_number("guidance_scale", d.guidance_scale);
    info.note = own->get_string("note", "");
  }
}

void check_parts_fit(const WanSetup& setup) {
  const std::string place = setup.info.folder.empty() ? setup.info.name : setup.info.folder.string();
  for (const WanConfig& dit : setup.transformers) {
    if (setup.vae.latent_channels != dit.out_channels) {
      throw ConfigError(fmt::format("{}: the transformer makes {} latent channels, the VAE reads {}", place,
                                    dit.out_channels, setup.vae.latent_channels));
    }
    if (setup.text_encoder.d_model != dit.text_width) {
      throw ConfigError(fmt::format("{}: the text encoder makes embeddings of width {}, the transformer reads {}",
                                    place, setup.text_encoder.d_model, dit.text_width));
    }
    if (dit.patch != setup.transformers.front().patch || dit.in_channels != setup.transformers.front().in_channels) {
      throw ConfigError(fmt::format("{}: the two transformers differ in patch or input channels", place));
    }
  }
}

// [rows, in] x [in, out].
double product_flops(double rows, int64_t in, int64_t out) {
  return 2 * rows * static_cast<double>(in) * static_cast<double>(out);
}

ForwardWork forward_work(const WanConfig& config, const TokenGrid& grid, const ModelInfo& info,
                         const WorkQuery& query) {
  ForwardWork work{.grid = grid, .layers = config.layers, .heads = config.heads, .head_width = config.head_width};
  const int64_t d = config.width(), patch = config.patch[0] * config.patch[1] * config.patch[2];
  const auto n = static_cast<double>(grid.video_tokens()), layers = static_cast<double>(config.layers);
  const int64_t keys = query.text_tokens + (query.text_tokens < info.padded_text_tokens ? 1 : 0);
  const auto k = static_cast<double>(keys), width = static_cast<double>(d);
  work.self_attention_flops = layers * 4 * n * n * width;
  work.cross_attention_flops = layers * 4 * n * k * width;
  const double block = 6 * product_flops(n, d, d) + product_flops(n, d, config.ffn_width) * 2;
  const double time = product_flops(1, config.frequency_width, d) + product_flops(1, d, d) + product_flops(1, d, 6 * d);
  work.linear_flops = layers * block + time + product_flops(n, config.in_channels * patch, d) +
                      product_flops(n, d, config.out_channels * patch);
  work.prepare_flops =
      product_flops(k, config.text_width, d) + product_flops(k, d, d) + layers * 2 * product_flops(k, d, d);
  int64_t image = 0;
  if (config.image_width > 0) {
    constexpr int64_t kClipTokens = 257;
    image = config.image_positions > 0 ? config.image_positions : kClipTokens;
    const auto m = static_cast<double>(image);
    work.cross_attention_flops += layers * 4 * n * m * width;
    work.prepare_flops += product_flops(m, config.image_width, config.image_width) +
                          product_flops(m, config.image_width, d) + layers * 2 * product_flops(m, d, d);
  }
  // At its largest, a block holds its input, the normed input, q, k, v, what attention gives and its projection; or
  // input, normed input, what came before, the hidden layer and its projection. In bfloat16 the last sum is made of
  // float32 copies.
  const int64_t tokens = grid.video_tokens();
  const int64_t row = query.element_bytes == 4 ? std::max(7 * d, 4 * d + config.ffn_width) * 4
                                               : 4 * d * 2 + config.ffn_width * 2 + 3 * d * 4;
  work.activation_bytes = tokens * (row + config.head_width * 4);
  work.prompt_bytes = config.layers * 2 * (keys + image) * d * query.element_bytes;
  return work;
}

}  // namespace

bool lists_wan_part(const ConfigNode& index, std::string_view part) {
  const ConfigNode* row = index.find(part);
  return row && row->is_list() && !row->as_list().empty() && row->as_list()[0].is_string();
}

void read_wan_index(const ConfigNode& index, ModelInfo& info) {
  const bool has_second = lists_wan_part(index, "transformer_2");
  info.boundary_ratio = index.get_number("boundary_ratio", 0);
  if (has_second != (info.boundary_ratio > 0)) {
    index.fail("transformer_2 and boundary_ratio belong together: one is given, the other is not");
  }
  info.stages = has_second ? 2 : 1;
  info.has_token_timesteps = index.get_bool("expand_timesteps", false);
}

void complete_wan_setup(WanSetup& setup, const ConfigNode& index, const std::optional<ConfigNode>& scheduler) {
  check_parts_fit(setup);
  ModelInfo& info = setup.info;
  const WanConfig& dit = setup.transformers.front();
  info.family = "wan";
  info.latent_channels = setup.vae.latent_channels;
  info.input_channels = dit.in_channels;
  info.temporal_stride = setup.vae.temporal_stride();
  info.spatial_stride = setup.vae.spatial_stride();
  info.size_multiple = info.spatial_stride * std::max(dit.patch[1], dit.patch[2]);
  info.dit_parameters = weights::count_parameters(wan_parameters(dit));
  info.vae_parameters = weights::count_parameters(wan_vae_parameters(setup.vae));
  info.text_encoder_parameters = weights::count_parameters(umt5_parameters(setup.text_encoder));
  read_scheduler(scheduler, info);
  read_defaults(index, info);
}

ModelWork compute_wan_work(const WanSetup& setup, const WorkQuery& query) {
  const ModelInfo& info = setup.info;
  STROBE_CHECK(query.num_frames >= 1 && (query.num_frames - 1) % info.temporal_stride == 0 &&
                   query.height % info.size_multiple == 0 && query.width % info.size_multiple == 0 &&
                   query.height > 0 && query.width > 0,
               "wan: work: {} frames of {}x{} are not a size of this model", query.num_frames, query.width,
               query.height);
  STROBE_CHECK(query.text_tokens >= 1 && query.text_tokens <= info.padded_text_tokens,
               "wan: work: {} text tokens, expected 1 to {}", query.text_tokens, info.padded_text_tokens);
  const int64_t frames = (query.num_frames - 1) / info.temporal_stride + 1;
  const int64_t rows = query.height / info.spatial_stride, cols = query.width / info.spatial_stride;
  const WanConfig& dit = setup.transformers.front();
  const TokenGrid grid{.frames = frames / dit.patch[0], .rows = rows / dit.patch[1], .cols = cols / dit.patch[2]};
  return {.forward = forward_work(dit, grid, info, query),
          .text = compute_umt5_work(setup.text_encoder, query.text_tokens, query.element_bytes),
          .decode = compute_wan_decode_work(setup.vae, frames, rows, cols)};
}

}  // namespace strobe::models
