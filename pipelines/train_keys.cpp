#include "pipelines/train_keys.h"

namespace strobe::pipelines {
namespace {

using config::KeySpec;
using config::KeyType;

KeySpec integer(const std::string& name, const std::string& sentence, const std::string& fallback, double minimum,
                double maximum) {
  return {.name = name,
          .type = KeyType::kInteger,
          .sentence = sentence,
          .group = "Training",
          .minimum = minimum,
          .maximum = maximum,
          .default_text = fallback};
}

KeySpec number(const std::string& name, const std::string& sentence, const std::string& fallback, double minimum,
               double maximum) {
  KeySpec key = integer(name, sentence, fallback, minimum, maximum);
  key.type = KeyType::kNumber;
  return key;
}

KeySpec text(const std::string& name, const std::string& sentence, const std::string& fallback,
             std::vector<std::string> choices = {}) {
  return {
      .name = name, .sentence = sentence, .group = "Training", .choices = std::move(choices), .default_text = fallback};
}

KeySpec list(KeySpec key, bool takes_method_map = false) {
  key.is_list = true;
  key.takes_method_map = takes_method_map;
  return key;
}

constexpr double kMost = 1e12;

}  // namespace

const config::KeyTable& train_keys() {
  static const config::KeyTable table({
      integer("schema", "version of this file's keys", "1", 1, 1),
      text("model", "architecture to begin anew (sprites, sprites_lite, wan_tiny ...), or a model folder to go on with",
           "sprites_lite"),
      integer("seed", "of weights, clips, noise and all else that is drawn", "0", 0, kMost),
      integer("statistics_clips", "clips that latents_mean and latents_std are measured on", "256", 1, 1e6),
      number("checkpoint_minutes", "time between checkpoints", "5", 0.001, 1e5),
      number("sample_minutes", "time between samples: strips, validation, accuracy; each stage also ends with them",
             "20", 0.001, 1e5),
      integer("sample_prompts", "captions of held-out scenes that are sampled", "12", 1, 200),
      integer("sample_steps", "steps of sampling", "16", 1, 1000),
      number("sample_guidance_scale", "guidance of sampling", "4", 0, 100),
      number("log_seconds", "time between lines of progress", "20", 0, 1e5),
  });
  return table;
}

const config::KeyTable& train_stage_keys() {
  static const config::KeyTable table({
      text("name", "of the stage, in logs and files; what it draws depends on it", ""),
      text("trains", "which part", "transformer", {"vae", "transformer", "transformer+text", "lora"}),
      integer("samples", "clips to train on", "", 1, kMost),
      list(text("clips",
                "CONTENT:frames=F,height=H,width=W,batch_size=B,share=S,zoom=Z with CONTENT scenes or leaves; one "
                "of them a step, by share",
                ""),
           /*takes_method_map=*/true),
      number("learning_rate", "of Muon (matrices) and AdamW (the rest)", "0.0025", 0, 10),
      integer("warmup_steps", "steps over which the rate rises from 0", "40", 0, kMost),
      text("decay", "how the rate falls: cosine over all samples, or linear over the last decay_share of them",
           "linear", {"none", "cosine", "linear"}),
      number("decay_share", "share of the samples over which a linear decay falls", "0.35", 0.001, 1),
      number("final_share", "share of the learning rate at the end", "0.05", 0, 1),
      number("momentum", "of Muon", "0.95", 0, 0.9999),
      integer("newton_schulz_steps", "of Muon", "4", 1, 20),
      number("beta1", "of AdamW", "0.9", 0, 0.9999),
      number("beta2", "of AdamW", "0.98", 0, 0.99999),
      number("weight_decay", "decoupled", "0", 0, 10),
      number("clip_norm", "largest norm of all gradients together; 0: any", "1", 0, 1e6),
      number("average_decay", "of the moving average of the weights", "0.999", 0, 0.999999),
      number("kl_weight", "of the autoencoder's loss", "0.0001", 0, 10),
      number("caption_dropout", "share of the clips whose caption is left out", "0.1", 0, 1),
      number("flow_shift", "of the noise levels", "3", 0.01, 100),
      list(text("attention",
                "methods of self attention, as in generate; dense_steps=0 makes them sparse from the start", "dense"),
           /*takes_method_map=*/true),
      integer("lora_rank", "of a LoRA", "8", 1, 4096),
      number("lora_alpha", "of a LoRA: products are scaled by alpha / rank", "8", 0, 1e6),
      list(text("lora_targets", "modules of a block that get a LoRA",
                "[attn1.to_q, attn1.to_k, attn1.to_v, attn1.to_out.0]")),
  });
  return table;
}

}  // namespace strobe::pipelines
