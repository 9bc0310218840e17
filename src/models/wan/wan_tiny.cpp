#include "models/wan/wan_tiny.h"

#include <unistd.h>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/noise.h"
#include "core/output_file.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/text/umt5.h"
#include "models/vae/wan_vae_config.h"
#include "models/wan/wan_config.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelIndex = R"({
  "_class_name": "WanPipeline",
  "_diffusers_version": "0.37.0",
  "_strobe": {"num_frames": 17, "height": 128, "width": 128, "fps": 16, "num_inference_steps": 20, "guidance_scale": 4.0,
              "note": "random weights: clips show texture, not the prompt"},
  "scheduler": ["diffusers", "UniPCMultistepScheduler"],
  "text_encoder": ["transformers", "UMT5EncoderModel"],
  "tokenizer": ["transformers", "T5TokenizerFast"],
  "transformer": ["diffusers", "WanTransformer3DModel"],
  "vae": ["diffusers", "AutoencoderKLWan"]
})";

constexpr const char* kTransformer = R"({
  "_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 2, "attention_head_dim": 64,
  "in_channels": 16, "out_channels": 16, "text_dim": 64, "freq_dim": 256, "ffn_dim": 256, "num_layers": 2,
  "cross_attn_norm": true, "qk_norm": "rms_norm_across_heads", "eps": 1e-6, "rope_max_seq_len": 1024,
  "image_dim": null, "added_kv_proj_dim": null, "pos_embed_seq_len": null
})";

constexpr const char* kTextEncoder = R"({
  "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "vocab_size": 192, "d_model": 64, "d_kv": 16, "d_ff": 128,
  "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2, "relative_attention_num_buckets": 32,
  "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6,
  "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": false
})";

constexpr const char* kVae = R"({
  "_class_name": "AutoencoderKLWan", "base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1,
  "attn_scales": [], "temperal_downsample": [false, true, true], "dropout": 0.0,
  "latents_mean": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  "latents_std": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
})";

constexpr const char* kScheduler = R"({
  "_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": true,
  "flow_shift": 3.0, "num_train_timesteps": 1000, "solver_order": 2, "solver_type": "bh2", "predict_x0": true,
  "lower_order_final": true, "final_sigmas_type": "zero", "disable_corrector": []
})";

const std::vector<std::string> kWords = {
    "a",    "an",     "the",  "on",    "over",  "in",   "of",         "and",    "with",   "large",  "small",
    "red",  "green",  "blue", "white", "black", "gray", "yellow",     "orange", "purple", "circle", "square",
    "star", "moving", "left", "right", "up",    "down", "background", "cat",    "dog",    "walks",  "grass"};

void write_text(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  write_file(path, std::string(text) + "\n");
}

// Normal values with the gain that keeps activations at unit scale; norms near one.
void write_weights(const fs::path& path, const std::vector<weights::TensorSpec>& specs, uint64_t& seed) {
  std::map<std::string, at::Tensor> tensors;
  for (const weights::TensorSpec& spec : specs) {
    at::Tensor noise = draw_noise(seed++, spec.shape);
    const bool is_norm = spec.name.ends_with(".gamma") ||
                         (spec.name.find("norm") != std::string::npos && spec.name.ends_with(".weight"));
    if (is_norm) {
      noise = noise * 0.05 + 1.0;
    } else if (spec.shape.size() >= 2) {
      noise = noise * std::sqrt(static_cast<double>(spec.shape[0]) / static_cast<double>(spec.numel()));
    } else {
      noise = noise * 0.05;
    }
    tensors[spec.name] = noise;
  }
  weights::save_safetensors(path, tensors, {{"format", "pt"}, {"strobe.weights", "random"}});
}

}  // namespace

void write_tiny_wan(const fs::path& folder, uint64_t seed) {
  const fs::path part = folder.string() + fmt::format(".{}.part", ::getpid());
  std::error_code error;
  fs::remove_all(part, error);
  fs::create_directories(part, error);
  if (error) throw IoError(fmt::format("{}: {}", part.string(), error.message()));
  write_text(part / "model_index.json", kModelIndex);
  write_text(part / "transformer" / "config.json", kTransformer);
  write_text(part / "text_encoder" / "config.json", kTextEncoder);
  write_text(part / "vae" / "config.json", kVae);
  write_text(part / "scheduler" / "scheduler_config.json", kScheduler);
  fs::create_directories(part / "tokenizer");
  write_word_tokenizer(part / "tokenizer", kWords);
  uint64_t next = seed << 16;
  const auto parse = [](const char* text) { return weights::parse_json(text, "tiny model"); };
  write_weights(part / "transformer" / "diffusion_pytorch_model.safetensors",
                wan_parameters(WanConfig::from_json(parse(kTransformer))), next);
  write_weights(part / "vae" / "diffusion_pytorch_model.safetensors",
                wan_vae_parameters(WanVaeConfig::from_json(parse(kVae))), next);
  write_weights(part / "text_encoder" / "model.safetensors",
                umt5_parameters(Umt5Config::from_json(parse(kTextEncoder))), next);
  fs::rename(part, folder, error);
  // Another process may have made it in the meantime: its files are the same.
  if (error && !fs::exists(folder / "model_index.json")) {
    throw IoError(fmt::format("{}: {}", folder.string(), error.message()));
  }
  fs::remove_all(part, error);
}

}  // namespace strobe::models
