#include "training/trainer.h"

#include "core/torch.h"
// After the precompiled header.
#include <unordered_set>

#include "core/counter_random.h"
#include "core/error.h"
#include "core/timer.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "sampling/schedule.h"
#include "training/lora_weights.h"
#include "training/losses.h"
#include "training/recorded_attention.h"
#include "training/sprites/caption.h"

namespace strobe::training {
namespace {

constexpr uint64_t kValidationSeed = 0x5EED0FC0DE5;
constexpr double kMinDecibelError = 1e-10;
enum Stream : uint64_t { kVaryCaption = 32, kDrawLora };

const char* const kAutoencoder = "vae";
const char* const kTransformer = "transformer";
const char* const kText = "text_encoder";
const char* const kLora = "lora";

std::vector<std::string> trained_parts(Trains trains) {
  switch (trains) {
    case Trains::kAutoencoder:
      return {kAutoencoder};
    case Trains::kTransformer:
      return {kTransformer};
    case Trains::kTransformerAndText:
      return {kTransformer, kText};
    case Trains::kLora:
      return {kLora};
  }
  return {};
}

bool trains_part(const StageRecipe& stage, const std::string& part) {
  const std::vector<std::string> parts = trained_parts(stage.trains);
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

std::string full_name(const std::string& part, const std::string& name) { return part + "/" + name; }

NamedTensors without_prefix(const NamedTensors& tensors, const std::string& prefix) {
  NamedTensors result;
  for (auto it = tensors.lower_bound(prefix); it != tensors.end() && it->first.starts_with(prefix); ++it) {
    result[it->first.substr(prefix.size())] = it->second;
  }
  return result;
}

void overwrite(const NamedTensors& from, NamedTensors& into, const std::string& what) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : into) {
    const auto found = from.find(name);
    if (found == from.end() || found->second.sizes() != tensor.sizes()) {
      throw WeightError(fmt::format("checkpoint: {}/{}: {}", what, name,
                                    found == from.end() ? "missing" : "has another shape than the recipe's model"));
    }
    tensor.copy_(found->second);
  }
}

Position saved_position(const NamedTensors& state) {
  const auto integer = [&](const char* name) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.numel() != 1)
      throw WeightError(fmt::format("checkpoint: {}: missing", name));
    return found->second.item<int64_t>();
  };
  return {.stage = static_cast<size_t>(integer("position/stage")),
          .step = integer("position/step"),
          .samples = integer("position/samples")};
}

}  // namespace

struct Trainer::State {
  Recipe recipe;
  TrainerOptions options;
  std::unique_ptr<models::TrainableModel> model;
  std::unique_ptr<models::Tokenizer> tokenizer;
  std::map<std::string, NamedTensors> weights;  // by part, float32 on the device
  std::unique_ptr<LoraWeights> lora;
  std::unique_ptr<Optimizer> optimizer;
  std::map<std::string, MovingAverage> averages;  // of what the stage trains
  std::optional<models::LatentStatistics> statistics;
  std::unique_ptr<RecordedAttention> attention;
  std::unique_ptr<caching::StepCache> step_cache = caching::make_step_cache("none");
  mutable std::map<std::string, at::Tensor> embeddings;  // by caption, of a frozen text encoder
  Position position;

  const StageRecipe& stage() const { return recipe.stages[std::min(position.stage, recipe.stages.size() - 1)]; }
  uint64_t seed() const { return stage_seed(recipe.seed, stage().name); }
  bool is_done() const { return position.stage >= recipe.stages.size(); }

  void begin_stage();
  void end_stage();
  void measure_statistics();
  const NamedTensors& usable(const std::string& part) const;
  at::Tensor encode_latents(const at::Tensor& clips) const;
  std::shared_ptr<models::PreparedConditioning> condition(const models::DiTModel& dit,
                                                          const models::TextEncoder& encoder,
                                                          const std::vector<std::string>& captions,
                                                          bool is_recorded) const;
  std::unique_ptr<models::DiTModel> bind_dit(const NamedTensors& transformer, const NamedTensors* lora_weights) const;
  std::vector<std::string> vary_captions(std::vector<std::string> captions, int64_t first) const;
  Loss transformer_loss(const ClipKind& kind, int64_t first, StepReport& report);
  Loss codec_loss(const ClipKind& kind, int64_t first, StepReport& report);
  double flops(const ClipKind& kind) const;
};

void Trainer::State::begin_stage() {
  const StageRecipe& now = stage();
  for (auto& [part, tensors] : weights) {
    const bool is_trained = trains_part(now, part);
    for (auto& [name, tensor] : tensors) tensor.set_requires_grad(is_trained);
  }
  lora.reset();
  if (now.trains == Trains::kLora) {
    lora =
        std::make_unique<LoraWeights>(weights.at(kTransformer), now.lora, mix_bits(seed() ^ kDrawLora), options.device);
  }
  averages.clear();
  NamedTensors trained;
  for (const std::string& part : trained_parts(now.trains)) {
    const NamedTensors& tensors = part == kLora ? lora->weights() : weights.at(part);
    averages.emplace(part, MovingAverage(tensors, now.average_decay));
    for (const auto& [name, tensor] : tensors) {
      at::Tensor leaf = tensor;
      leaf.set_requires_grad(true);
      trained[full_name(part, name)] = leaf;
    }
  }
  const auto is_matrix = [this](const std::string& name, const at::Tensor& weight) {
    const size_t slash = name.find('/');
    return model->is_matrix(name.substr(0, slash), name.substr(slash + 1), weight);
  };
  optimizer = std::make_unique<Optimizer>(std::move(trained), is_matrix, now.optimizer);
  attention = std::make_unique<RecordedAttention>(attention::EngineOptions{.rules = now.attention});
  embeddings.clear();
  if (now.trains != Trains::kAutoencoder && !statistics) measure_statistics();
}

void Trainer::State::end_stage() {
  const StageRecipe* const next =
      position.stage + 1 < recipe.stages.size() ? &recipe.stages[position.stage + 1] : nullptr;
  for (const auto& [part, average] : averages) {
    if (part == kLora || (next && trains_part(*next, part))) continue;
    overwrite(average.weights(), weights.at(part), part);
  }
  if (next && next->trains == Trains::kAutoencoder) statistics.reset();
  position = {.stage = position.stage + 1};
  if (!is_done()) begin_stage();
}

const NamedTensors& Trainer::State::usable(const std::string& part) const {
  const auto average = averages.find(part);
  return average == averages.end() ? weights.at(part) : average->second.weights();
}

// Per channel over clips of the largest kind of the last stage.
void Trainer::State::measure_statistics() {
  const at::NoGradGuard no_grad;
  const std::vector<ClipKind>& kinds = recipe.stages.back().clips;
  const auto pixels = [](const ClipKind& kind) { return kind.frames * kind.height * kind.width; };
  ClipKind kind = *std::max_element(kinds.begin(), kinds.end(),
                                    [&](const auto& a, const auto& b) { return pixels(a) < pixels(b); });
  const auto codec = model->bind_codec(weights.at(kAutoencoder), options.dtype, options.device);
  at::Tensor sum, squares;
  double count = 0;
  constexpr int64_t kTogether = 4;
  for (int64_t first = 0; first < recipe.statistics_clips; first += kTogether) {
    const ClipBatch batch = draw_clips(kind, stage_seed(recipe.seed, "statistics"), first,
                                       std::min(kTogether, recipe.statistics_clips - first));
    const at::Tensor mean = codec->encode(batch.pixels.to(options.device)).mean.to(at::kDouble);
    const at::Tensor part = mean.sum({0, 2, 3, 4}), square = mean.square().sum({0, 2, 3, 4});
    sum = sum.defined() ? sum + part : part;
    squares = squares.defined() ? squares + square : square;
    count += static_cast<double>(mean.numel()) / static_cast<double>(mean.size(1));
  }
  const at::Tensor mean = (sum / count).cpu(),
                   deviation = ((squares / count).cpu() - mean.square()).clamp_min(1e-12).sqrt();
  models::LatentStatistics found;
  for (int64_t c = 0; c < mean.size(0); ++c) {
    // As a checkpoint keeps them.
    found.mean.push_back(mean[c].to(at::kFloat).item<float>());
    found.deviation.push_back(deviation[c].to(at::kFloat).item<float>());
  }
  statistics = std::move(found);
}

at::Tensor Trainer::State::encode_latents(const at::Tensor& clips) const {
  const at::NoGradGuard no_grad;
  const auto codec = model->bind_codec(usable(kAutoencoder), options.dtype, options.device);
  const at::Tensor mean = codec->encode(clips.to(options.device)).mean.to(at::kFloat);
  const auto row = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kDouble).to(options.device, at::kFloat).view({1, -1, 1, 1, 1});
  };
  return (mean - row(statistics->mean)) / row(statistics->deviation);
}

std::shared_ptr<models::PreparedConditioning> Trainer::State::condition(const models::DiTModel& dit,
                                                                        const models::TextEncoder& encoder,
                                                                        const std::vector<std::string>& captions,
                                                                        bool is_recorded) const {
  const int64_t padded = model->info().padded_text_tokens;
  std::vector<std::string> missing;
  std::unordered_set<std::string> seen;
  for (const std::string& caption : captions) {
    const bool is_known = !is_recorded && embeddings.contains(caption);
    if (!is_known && seen.insert(caption).second) missing.push_back(caption);
  }
  std::map<std::string, at::Tensor> fresh;
  if (!missing.empty()) {
    std::vector<std::vector<int32_t>> ids;
    std::vector<int64_t> lengths;
    for (const std::string& caption : missing) {
      ids.push_back(tokenizer->encode(caption, padded));
      lengths.push_back(static_cast<int64_t>(ids.back().size()));
    }
    const std::vector<at::Tensor> states = encoder.encode_together(ids).split_with_sizes(lengths);
    for (size_t i = 0; i < missing.size(); ++i) fresh[missing[i]] = states[i];
    if (!is_recorded) {
      for (const auto& [caption, value] : fresh) embeddings[caption] = value.detach().clone();
    }
  }
  std::vector<models::Conditioning> prompts;
  for (const std::string& caption : captions) {
    const auto found = fresh.find(caption);
    prompts.push_back(
        {.text = {.states = found == fresh.end() ? embeddings.at(caption) : found->second, .padded_tokens = padded}});
  }
  return dit.prepare(prompts);
}

std::unique_ptr<models::DiTModel> Trainer::State::bind_dit(const NamedTensors& transformer,
                                                           const NamedTensors* lora_weights) const {
  std::shared_ptr<const weights::WeightPatches> patches;
  if (lora) patches = lora->patches(lora_weights ? *lora_weights : lora->weights());
  return model->bind_dit(transformer, options.dtype, options.device, patches);
}

// Some are left out, for guidance; some begin with a capital or end with a full stop, as people write.
std::vector<std::string> Trainer::State::vary_captions(std::vector<std::string> captions, int64_t first) const {
  constexpr double kCapital = 0.1, kFullStop = 0.1;
  for (size_t i = 0; i < captions.size(); ++i) {
    CounterRandom draw(seed(), static_cast<uint64_t>(first) + i, kVaryCaption);
    const bool is_left_out = draw.uniform() < stage().caption_dropout;
    if (draw.uniform() < kCapital) captions[i][0] = static_cast<char>(captions[i][0] - 'a' + 'A');
    if (draw.uniform() < kFullStop) captions[i] += '.';
    if (is_left_out) captions[i].clear();
  }
  return captions;
}

Loss Trainer::State::transformer_loss(const ClipKind& kind, int64_t first, StepReport& report) {
  const Timer drawing;
  ClipBatch clips = draw_clips(kind, seed(), first, kind.batch_size);
  const std::vector<std::string> captions = vary_captions(std::move(clips.captions), first);
  const at::Tensor latents = encode_latents(clips.pixels);
  VelocityBatch batch{
      .latents = latents,
      .noise = sample_noise(seed(), first, kind.batch_size, latents.sizes().slice(1).vec()).to(options.device),
      .sigmas = sample_sigmas(seed(), first, kind.batch_size, stage().flow_shift).to(options.device)};
  report.drawing_ms = drawing.milliseconds();
  const auto dit = bind_dit(weights.at(kTransformer), nullptr);
  const auto encoder = model->bind_text_encoder(weights.at(kText), options.dtype, options.device);
  batch.conditioning = condition(*dit, *encoder, captions, trains_part(stage(), kText));
  models::BlockRunner blocks(*step_cache);
  report.flops = flops(kind);
  return {.total = velocity_loss(*dit, batch, *attention, blocks), .terms = {}};
}

Loss Trainer::State::codec_loss(const ClipKind& kind, int64_t first, StepReport& report) {
  const Timer drawing;
  const at::Tensor clips = draw_clips(kind, seed(), first, kind.batch_size).pixels.to(options.device);
  report.drawing_ms = drawing.milliseconds();
  const models::ModelInfo& info = model->info();
  const at::Tensor noise = sample_noise(seed(), first, kind.batch_size,
                                        {info.latent_channels, (kind.frames - 1) / info.temporal_stride + 1,
                                         kind.height / info.spatial_stride, kind.width / info.spatial_stride});
  const auto codec = model->bind_codec(weights.at(kAutoencoder), options.dtype, options.device);
  return autoencoder_loss(*codec, clips, noise.to(options.device), stage().kl_weight);
}

// A backward pass is two forward ones; a LoRA's leaves out the weights' own gradients, which is not counted off.
double Trainer::State::flops(const ClipKind& kind) const {
  constexpr int64_t kCaptionTokens = 10;
  const models::ForwardWork work =
      model
          ->compute_work(
              {.num_frames = kind.frames, .height = kind.height, .width = kind.width, .text_tokens = kCaptionTokens})
          .forward;
  return 3 * (work.self_attention_flops + work.cross_attention_flops + work.linear_flops) *
         static_cast<double>(kind.batch_size);
}

Trainer::Trainer(Recipe recipe, const TrainerOptions& options) : state_(std::make_unique<State>()) {
  State& s = *state_;
  STROBE_CHECK(!recipe.stages.empty(), "training: no stages");
  s.recipe = std::move(recipe);
  s.options = options;
  s.model = models::open_trainable_model(s.recipe.model);
  s.tokenizer = models::open_tokenizer(options.tokenizer);
  for (const std::string& part : s.model->parts()) {
    for (auto& [name, tensor] : s.model->initial_weights(part, stage_seed(s.recipe.seed, part))) {
      s.weights[part][name] = tensor.to(options.device).contiguous();
    }
  }
  if (s.recipe.stages.front().trains != Trains::kAutoencoder) s.statistics = s.model->latent_statistics();
  s.begin_stage();
}

Trainer::~Trainer() = default;
const Recipe& Trainer::recipe() const { return state_->recipe; }
const models::TrainableModel& Trainer::model() const { return *state_->model; }
const Position& Trainer::position() const { return state_->position; }
bool Trainer::is_done() const { return state_->is_done(); }
const StageRecipe& Trainer::stage() const { return state_->stage(); }

StepReport Trainer::step() {
  State& s = *state_;
  STROBE_CHECK(!s.is_done(), "training: all {} stages are done", s.recipe.stages.size());
  const StageRecipe& stage = s.stage();
  StepReport report{.before = s.position};
  const Timer timer;
  const ClipKind& kind = kind_at(stage.clips, s.seed(), s.position.step);
  report.samples = kind.batch_size;
  report.rate = rate_at(stage.rate, s.position.step, s.position.samples, stage.samples);
  const Loss loss = stage.trains == Trains::kAutoencoder ? s.codec_loss(kind, s.position.samples, report)
                                                         : s.transformer_loss(kind, s.position.samples, report);
  report.loss = loss.total.detach().item<double>();
  report.terms = loss.terms;
  const auto refuse = [&](const char* what, double value) {
    s.optimizer->forget_gradients();
    throw Error(
        fmt::format("stage {}, step {}: the {} is {}; nothing was changed by this step (a lower learning_rate, or "
                    "more warmup_steps?)",
                    stage.name, s.position.step, what, value));
  };
  if (!std::isfinite(report.loss)) refuse("loss", report.loss);
  loss.total.backward();
  const Timer updating;
  report.gradient_norm = s.optimizer->step(report.rate);
  if (!std::isfinite(report.gradient_norm)) refuse("norm of the gradients", report.gradient_norm);
  for (auto& [part, average] : s.averages) {
    average.update(part == kLora ? s.lora->weights() : s.weights.at(part));
  }
  report.optimizer_ms = updating.milliseconds();
  ++s.position.step;
  s.position.samples += kind.batch_size;
  if (s.position.samples >= stage.samples) s.end_stage();
  report.milliseconds = timer.milliseconds();
  return report;
}

const NamedTensors& Trainer::weights(const std::string& part) const { return state_->usable(part); }

models::LatentStatistics Trainer::statistics() const {
  return state_->statistics ? *state_->statistics : state_->model->latent_statistics();
}

double Trainer::reconstruct(const ClipKind& kind, int64_t count, at::Tensor& clips, at::Tensor& reconstructions) const {
  const at::NoGradGuard no_grad;
  const State& s = *state_;
  clips = draw_clips(kind, kValidationSeed, 0, count, sprites::Split::kHeldOut).pixels;
  const auto codec = s.model->bind_codec(s.usable(kAutoencoder), s.options.dtype, s.options.device);
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor latents = codec->encode(clips.narrow(0, i, 1).to(s.options.device)).mean;
    parts.push_back(codec->decode(latents).clamp(-1, 1).to(at::kCPU, at::kFloat));
  }
  reconstructions = at::cat(parts);
  // Pixels in [-1, 1]: the peak is 2.
  const at::Tensor square = (reconstructions - clips).square().mean({1, 2, 3, 4}).clamp_min(kMinDecibelError);
  return (4 / square).log10().mean().item<double>() * 10;
}

double Trainer::validation_loss(const ClipKind& kind, int64_t count) const {
  const at::NoGradGuard no_grad;
  State& s = *state_;
  const NamedTensors* const lora = s.lora ? &s.usable(kLora) : nullptr;
  const auto dit = s.bind_dit(s.usable(kTransformer), lora);
  const auto encoder = s.model->bind_text_encoder(s.usable(kText), s.options.dtype, s.options.device);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const ClipBatch clip = draw_clips(kind, kValidationSeed, i, 1, sprites::Split::kHeldOut);
    const at::Tensor latents = s.encode_latents(clip.pixels);
    // Levels spread evenly, so that few clips give a steady number.
    const double u = (static_cast<double>(i) + 0.5) / static_cast<double>(count);
    models::BlockRunner blocks(*s.step_cache);
    // Averages are not what the cached embeddings were made with while the text encoder is trained.
    const bool is_text_trained = trains_part(s.stage(), kText);
    const VelocityBatch batch{
        .latents = latents,
        .noise = sample_noise(kValidationSeed, i, 1, latents.sizes().slice(1).vec()).to(s.options.device),
        .sigmas = at::full({1}, sampling::shifted_sigma(u, s.stage().flow_shift), latents.options()),
        .conditioning = s.condition(*dit, *encoder, clip.captions, is_text_trained)};
    sum += velocity_loss(*dit, batch, *s.attention, blocks).item<double>();
  }
  return sum / static_cast<double>(count);
}

std::vector<RecordedRow> Trainer::attention_rows() const { return state_->attention->rows(); }

NamedTensors Trainer::lora_tensors() const {
  return state_->lora ? state_->lora->file_tensors(state_->usable(kLora)) : NamedTensors();
}

NamedTensors Trainer::state() const {
  const State& s = *state_;
  const auto integer = [](int64_t value) { return at::full({1}, value, at::kLong); };
  NamedTensors state = {{"position/stage", integer(static_cast<int64_t>(s.position.stage))},
                        {"position/step", integer(s.position.step)},
                        {"position/samples", integer(s.position.samples)}};
  const auto add = [&](const NamedTensors& tensors, const std::string& prefix) {
    for (const auto& [name, tensor] : tensors) state[prefix + name] = tensor.detach();
  };
  for (const auto& [part, tensors] : s.weights) add(tensors, "weights/" + part + "/");
  if (s.lora) add(s.lora->weights(), "weights/lora/");
  for (const auto& [part, average] : s.averages) {
    add(average.weights(), "average/" + part + "/");
    state["updates/" + part] = integer(average.updates());
  }
  if (!s.is_done()) add(s.optimizer->state(), "optimizer/");
  if (s.statistics) {
    state["statistics/mean"] = at::tensor(s.statistics->mean, at::kDouble).to(at::kFloat);
    state["statistics/deviation"] = at::tensor(s.statistics->deviation, at::kDouble).to(at::kFloat);
  }
  return state;
}

void Trainer::set_state(const NamedTensors& state) {
  State& s = *state_;
  const Position position = saved_position(state);
  if (position.stage > s.recipe.stages.size()) {
    throw WeightError(fmt::format("checkpoint: stage {} of {}", position.stage, s.recipe.stages.size()));
  }
  for (auto& [part, tensors] : s.weights) overwrite(without_prefix(state, "weights/" + part + "/"), tensors, part);
  s.statistics.reset();
  if (state.contains("statistics/mean")) {
    models::LatentStatistics statistics;
    for (auto [name, into] :
         {std::pair{"statistics/mean", &statistics.mean}, {"statistics/deviation", &statistics.deviation}}) {
      const at::Tensor values = state.at(name).to(at::kDouble).contiguous();
      into->assign(values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel());
    }
    s.statistics = std::move(statistics);
  }
  s.position = position;
  s.begin_stage();
  if (s.lora) {
    NamedTensors leaves = s.lora->weights();
    overwrite(without_prefix(state, "weights/lora/"), leaves, kLora);
  }
  for (auto& [part, average] : s.averages) {
    average.set(without_prefix(state, "average/" + part + "/"), state.at("updates/" + part).item<int64_t>());
  }
  if (!s.is_done()) s.optimizer->set_state(without_prefix(state, "optimizer/"));
}

}  // namespace strobe::training
