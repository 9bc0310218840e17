// Training files: keys to recipe.
#include "core/torch.h"
// After the precompiled header.
#include "attention/options.h"
#include "config/compose.h"
#include "config/yaml_loader.h"
#include "core/error.h"
#include "models/trainable_model.h"
#include "pipelines/train_keys.h"
#include "pipelines/training_run.h"
#include "training/checkpoint.h"

namespace strobe::pipelines {
namespace {

using training::ClipKind;
using training::StageRecipe;

constexpr double kMostPixels = 1 << 16;

std::pair<std::string, std::string> split_name(const std::string& text) {
  const size_t colon = text.find(':');
  return colon == std::string::npos ? std::pair{text, std::string()}
                                    : std::pair{text.substr(0, colon), text.substr(colon + 1)};
}

ClipKind to_clip_kind(const ConfigNode& node) {
  const auto [content, options] = split_name(node.as_string());
  if (content != "scenes" && content != "leaves") {
    node.fail(fmt::format("expected scenes or leaves before ':', got '{}'", content));
  }
  attention::OptionReader reader("clips", attention::parse_option_text(options, "clips"));
  ClipKind kind;
  kind.content = content == "leaves" ? ClipKind::Content::kLeaves : ClipKind::Content::kScenes;
  kind.frames = reader.integer("frames", kind.frames, {.min = 1, .max = 1e4}, "");
  kind.height = reader.integer("height", kind.height, {.min = 1, .max = kMostPixels}, "");
  kind.width = reader.integer("width", kind.width, {.min = 1, .max = kMostPixels}, "");
  kind.zoom = reader.integer("zoom", kind.zoom, {.min = 1, .max = 16}, "");
  kind.batch_size = reader.integer("batch_size", kind.batch_size, {.min = 1, .max = 1e6}, "");
  kind.share = reader.number("share", kind.share, {.min = 1e-6, .max = 1e6}, "");
  reader.finish();
  return kind;
}

training::Trains to_trains(const std::string& name) {
  if (name == "vae") return training::Trains::kAutoencoder;
  if (name == "transformer+text") return training::Trains::kTransformerAndText;
  return name == "lora" ? training::Trains::kLora : training::Trains::kTransformer;
}

std::vector<std::string> texts(const ConfigNode& list) {
  std::vector<std::string> result;
  for (const ConfigNode& item : list.as_list()) result.push_back(item.as_string());
  return result;
}

void read_optimizer(const ConfigNode& stage, StageRecipe& recipe) {
  training::OptimizerOptions& o = recipe.optimizer;
  o.learning_rate = stage.at("learning_rate").as_number();
  o.momentum = stage.at("momentum").as_number();
  o.newton_schulz_steps = static_cast<int>(stage.at("newton_schulz_steps").as_integer());
  o.betas = {stage.at("beta1").as_number(), stage.at("beta2").as_number()};
  o.weight_decay = stage.at("weight_decay").as_number();
  o.largest_gradient_norm = stage.at("clip_norm").as_number();
  const std::string decay = stage.at("decay").as_string();
  recipe.rate = {.warmup_steps = stage.at("warmup_steps").as_integer(),
                 .decay = decay == "cosine"   ? training::Decay::kCosine
                          : decay == "linear" ? training::Decay::kLinear
                                              : training::Decay::kNone,
                 .decay_share = stage.at("decay_share").as_number(),
                 .final_share = stage.at("final_share").as_number()};
}

StageRecipe to_stage(const ConfigNode& node, const models::ModelInfo& info) {
  const ConfigNode stage = train_stage_keys().with_defaults(train_stage_keys().checked(node));
  for (const char* key : {"name", "samples", "clips"}) {
    if (!stage.find(key)) node.fail(fmt::format("a stage needs the key {}", key));
  }
  StageRecipe recipe;
  recipe.name = stage.at("name").as_string();
  if (recipe.name.empty() || recipe.name.find_first_of("/ \t\n") != std::string::npos) {
    stage.at("name").fail("expected a name without spaces and slashes");
  }
  recipe.trains = to_trains(stage.at("trains").as_string());
  recipe.samples = stage.at("samples").as_integer();
  for (const ConfigNode& item : stage.at("clips").as_list()) {
    const ClipKind kind = to_clip_kind(item);
    if (kind.height % info.size_multiple != 0 || kind.width % info.size_multiple != 0) {
      item.fail(fmt::format("expected height and width in multiples of {}", info.size_multiple));
    }
    if ((kind.frames - 1) % info.temporal_stride != 0) {
      item.fail(fmt::format("expected frames of the form {} k + 1", info.temporal_stride));
    }
    if (kind.content == ClipKind::Content::kLeaves && recipe.trains != training::Trains::kAutoencoder) {
      item.fail("leaves have no captions: they are for the vae alone");
    }
    recipe.clips.push_back(kind);
  }
  read_optimizer(stage, recipe);
  recipe.average_decay = stage.at("average_decay").as_number();
  recipe.kl_weight = stage.at("kl_weight").as_number();
  recipe.caption_dropout = stage.at("caption_dropout").as_number();
  recipe.flow_shift = stage.at("flow_shift").as_number();
  recipe.attention = attention::make_rules(stage.at("attention"));
  recipe.lora = {.rank = stage.at("lora_rank").as_integer(),
                 .alpha = stage.at("lora_alpha").as_number(),
                 .targets = texts(stage.at("lora_targets"))};
  return recipe;
}

}  // namespace

TrainingPlan load_training_plan(const std::filesystem::path& file) {
  const ConfigNode document = config::load_yaml(file);
  if (!document.is_map()) throw ConfigError(fmt::format("{}: expected keys of a training run", file.string()));
  ConfigNode plain = ConfigNode::map();
  for (const auto& [name, value] : document.as_map()) {
    if (name != "stages") plain.set(name, value);
  }
  const ConfigNode run = train_keys().with_defaults(train_keys().checked(plain));
  const ConfigNode* stages = document.find("stages");
  if (!stages || !stages->is_list() || stages->as_list().empty()) {
    throw ConfigError(fmt::format("{}: expected a list of stages under the key stages", file.string()));
  }
  TrainingPlan plan;
  plan.recipe.model = run.at("model").as_string();
  plan.recipe.seed = static_cast<uint64_t>(run.at("seed").as_integer());
  plan.recipe.statistics_clips = run.at("statistics_clips").as_integer();
  const auto model = models::open_trainable_model(plan.recipe.model);
  for (const ConfigNode& node : stages->as_list()) {
    StageRecipe stage = to_stage(node, model->info());
    for (const StageRecipe& other : plan.recipe.stages) {
      if (other.name == stage.name) node.at("name").fail("two stages of one name");
    }
    if (stage.trains == training::Trains::kLora && &node != &stages->as_list().back()) {
      node.fail("a lora stage has to be the last one");
    }
    plan.recipe.stages.push_back(std::move(stage));
  }
  plan.checkpoint_minutes = run.at("checkpoint_minutes").as_number();
  plan.sample_minutes = run.at("sample_minutes").as_number();
  plan.log_seconds = run.at("log_seconds").as_number();
  plan.sample_prompts = static_cast<int>(run.at("sample_prompts").as_integer());
  plan.sample_steps = static_cast<int>(run.at("sample_steps").as_integer());
  plan.sample_guidance_scale = run.at("sample_guidance_scale").as_number();
  plan.text = config::to_yaml(document) + "\n";
  // What the weights depend on: how often is reported or sampled is not part of it.
  const ConfigNode what = ConfigNode::map(
      {{"model", run.at("model")}, {"seed", run.at("seed")}, {"statistics_clips", run.at("statistics_clips")}});
  std::string text = config::to_yaml(what);
  for (const ConfigNode& node : stages->as_list()) {
    text += config::to_yaml(node);
    plan.recipe.stage_hashes.push_back(training::text_hash(text));
  }
  return plan;
}

}  // namespace strobe::pipelines
