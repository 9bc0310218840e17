// The text files of a Wan model folder.
#include "core/torch.h"
// After the precompiled header.
#include "models/wan/wan_setup.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

ConfigNode text_node(const char* text) { return ConfigNode::string(text); }
ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }

template <class Values, class Make>
ConfigNode list_node(const Values& values, Make make) {
  ConfigNode::List list;
  for (const auto value : values) list.push_back(make(value));
  return ConfigNode::list(std::move(list));
}

ConfigNode library_class(const char* library, const char* name) {
  return ConfigNode::list({text_node(library), text_node(name)});
}

ConfigNode transformer_node(const WanConfig& config) {
  return ConfigNode::map({{"_class_name", text_node("WanTransformer3DModel")},
                          {"patch_size", list_node(config.patch, integer)},
                          {"num_attention_heads", integer(config.heads)},
                          {"attention_head_dim", integer(config.head_width)},
                          {"in_channels", integer(config.in_channels)},
                          {"out_channels", integer(config.out_channels)},
                          {"text_dim", integer(config.text_width)},
                          {"freq_dim", integer(config.frequency_width)},
                          {"ffn_dim", integer(config.ffn_width)},
                          {"num_layers", integer(config.layers)},
                          {"cross_attn_norm", ConfigNode::boolean(true)},
                          {"qk_norm", text_node("rms_norm_across_heads")},
                          {"eps", ConfigNode::number(config.eps)},
                          {"rope_max_seq_len", integer(config.rope_positions)},
                          {"image_dim", ConfigNode::null()},
                          {"added_kv_proj_dim", ConfigNode::null()},
                          {"pos_embed_seq_len", ConfigNode::null()}});
}

ConfigNode text_encoder_node(const Umt5Config& config) {
  return ConfigNode::map({{"architectures", ConfigNode::list({text_node("UMT5EncoderModel")})},
                          {"model_type", text_node("umt5")},
                          {"vocab_size", integer(config.vocab_size)},
                          {"d_model", integer(config.d_model)},
                          {"d_kv", integer(config.d_kv)},
                          {"d_ff", integer(config.d_ff)},
                          {"num_heads", integer(config.num_heads)},
                          {"num_layers", integer(config.num_layers)},
                          {"num_decoder_layers", integer(config.num_layers)},
                          {"relative_attention_num_buckets", integer(config.num_buckets)},
                          {"relative_attention_max_distance", integer(config.max_distance)},
                          {"feed_forward_proj", text_node("gated-gelu")},
                          {"layer_norm_epsilon", ConfigNode::number(config.layer_norm_eps)},
                          {"dropout_rate", ConfigNode::number(0.0)},
                          {"pad_token_id", integer(0)},
                          {"eos_token_id", integer(1)},
                          {"tie_word_embeddings", ConfigNode::boolean(false)}});
}

}  // namespace

ConfigNode wan_index_node(const ModelInfo& info) {
  const ModelDefaults& d = info.defaults;
  ConfigNode index =
      ConfigNode::map({{"_class_name", text_node("WanPipeline")},
                       {"_diffusers_version", text_node("0.37.0")},
                       {"_strobe", ConfigNode::map({{"num_frames", integer(d.num_frames)},
                                                    {"height", integer(d.height)},
                                                    {"width", integer(d.width)},
                                                    {"fps", integer(d.fps)},
                                                    {"num_inference_steps", integer(d.num_inference_steps)},
                                                    {"guidance_scale", ConfigNode::number(d.guidance_scale)},
                                                    {"note", ConfigNode::string(info.note)}})},
                       {"scheduler", library_class("diffusers", "UniPCMultistepScheduler")},
                       {"text_encoder", library_class("transformers", "UMT5EncoderModel")},
                       {"tokenizer", library_class("transformers", "T5TokenizerFast")},
                       {"transformer", library_class("diffusers", "WanTransformer3DModel")},
                       {"vae", library_class("diffusers", "AutoencoderKLWan")}});
  if (info.has_token_timesteps) index.set("expand_timesteps", ConfigNode::boolean(true));
  if (info.stages == 2) {
    index.set("transformer_2", library_class("diffusers", "WanTransformer3DModel"));
    index.set("boundary_ratio", ConfigNode::number(info.boundary_ratio));
  }
  return index;
}

ConfigNode wan_scheduler_node(const ModelInfo& info) {
  return ConfigNode::map({{"_class_name", text_node("UniPCMultistepScheduler")},
                          {"prediction_type", text_node("flow_prediction")},
                          {"use_flow_sigmas", ConfigNode::boolean(true)},
                          {"flow_shift", ConfigNode::number(info.defaults.flow_shift)},
                          {"num_train_timesteps", integer(1000)},
                          {"solver_order", integer(2)},
                          {"solver_type", text_node("bh2")},
                          {"predict_x0", ConfigNode::boolean(true)},
                          {"lower_order_final", ConfigNode::boolean(true)},
                          {"final_sigmas_type", text_node("zero")},
                          {"disable_corrector", ConfigNode::list()}});
}

CheckpointFiles wan_files(const WanSetup& setup, at::ScalarType dtype, at::ScalarType text_dtype) {
  CheckpointFiles files;
  const auto add_text = [&](const std::string& path, const ConfigNode& node) {
    files.texts.emplace_back(path, weights::to_json(node));
  };
  add_text("model_index.json", wan_index_node(setup.info));
  add_text("scheduler/scheduler_config.json", wan_scheduler_node(setup.info));
  add_text("text_encoder/config.json", text_encoder_node(setup.text_encoder));
  add_text("vae/config.json", setup.vae.to_json());
  const std::string stem = "diffusion_pytorch_model";
  for (size_t stage = 0; stage < setup.transformers.size(); ++stage) {
    const WanConfig& config = setup.transformers[stage];
    const std::string part = stage == 0 ? "transformer" : "transformer_2";
    add_text(part + "/config.json", transformer_node(config));
    files.weights.push_back({part, stem, wan_parameters(config), dtype});
  }
  files.weights.push_back({"vae", stem, wan_vae_parameters(setup.vae), dtype});
  files.weights.push_back({"text_encoder", "model", umt5_parameters(setup.text_encoder), text_dtype});
  return files;
}

}  // namespace strobe::models
