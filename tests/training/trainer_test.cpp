#include "training/trainer.h"

#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include <numeric>

#include "core/error.h"
#include "core/noise.h"
#include "models/block_runner.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"
#include "training/checkpoint.h"
#include "training/lora_weights.h"
#include "training/losses.h"
#include "training/recorded_attention.h"
#include "training/sprites/caption.h"
#include "weights/safetensors.h"

namespace strobe::training {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

StageRecipe stage(const std::string& name, Trains trains, int64_t samples, ClipKind kind) {
  kind.batch_size = 2;
  StageRecipe recipe{.name = name, .trains = trains, .samples = samples, .clips = {kind}};
  recipe.rate.warmup_steps = 2;
  return recipe;
}

Recipe tiny_recipe() {
  Recipe recipe{.model = "wan_tiny", .seed = 3, .statistics_clips = 2};
  const ClipKind still{.frames = 1, .height = 32, .width = 32}, clip{.frames = 5, .height = 32, .width = 32};
  recipe.stages = {stage("codec", Trains::kAutoencoder, 4, clip),
                   stage("stills", Trains::kTransformerAndText, 4, still),
                   stage("clips", Trains::kTransformer, 4, clip), stage("more", Trains::kLora, 4, clip)};
  recipe.stages[3].lora = {.rank = 2, .alpha = 4, .targets = {"attn1.to_q", "ffn.net.0.proj"}};
  return recipe;
}

struct Training : ::testing::Test {
  Training() { sprites::write_tokenizer(folder / "tokenizer"); }
  std::unique_ptr<Trainer> trainer(const Recipe& recipe) const {
    return std::make_unique<Trainer>(recipe, TrainerOptions{.tokenizer = folder / "tokenizer"});
  }
  static NamedTensors copy(const NamedTensors& tensors) {
    NamedTensors result;
    for (const auto& [name, tensor] : tensors) result[name] = tensor.clone();
    return result;
  }
  static void expect_equal(const NamedTensors& a, const NamedTensors& b) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
  test::TempFolder folder;
};

TEST_F(Training, goes_on_bit_for_bit_from_any_step) {
  const auto whole = trainer(tiny_recipe());
  std::vector<NamedTensors> states;
  while (!whole->is_done()) {
    states.push_back(copy(whole->state()));
    const StepReport report = whole->step();
    EXPECT_TRUE(std::isfinite(report.loss) && report.loss > 0);
  }
  EXPECT_EQ(states.size(), 8U);
  const NamedTensors end = whole->state();
  // In the middle of each stage, and at its first step.
  for (size_t at = 1; at < states.size(); ++at) {
    const auto resumed = trainer(tiny_recipe());
    resumed->set_state(states[at]);
    expect_equal(resumed->state(), states[at]);
    while (!resumed->is_done()) resumed->step();
    SCOPED_TRACE(at);
    expect_equal(resumed->state(), end);
  }
}

TEST_F(Training, every_stage_moves_what_it_trains_and_nothing_else) {
  const auto run = trainer(tiny_recipe());
  for (const std::string& trained :
       {std::string("vae"), std::string("transformer"), std::string("transformer"), std::string("lora")}) {
    const NamedTensors before = copy(run->state());
    run->step();
    const NamedTensors after = run->state();
    for (const auto& [name, tensor] : before) {
      if (!name.starts_with("weights/")) continue;
      const bool is_trained = name.starts_with("weights/" + trained + "/") ||
                              (run->stage().name == "stills" && name.starts_with("weights/text_encoder/"));
      EXPECT_TRUE(is_trained || at::equal(tensor, after.at(name))) << name;
    }
    bool has_moved = false;
    for (const auto& [name, tensor] : before) {
      if (name.starts_with("weights/" + trained + "/")) has_moved = has_moved || !at::equal(tensor, after.at(name));
    }
    EXPECT_TRUE(has_moved) << trained;
    run->step();
  }
  EXPECT_TRUE(run->is_done());
}

TEST_F(Training, the_loss_falls) {
  Recipe recipe = tiny_recipe();
  const ClipKind still{.frames = 1, .height = 32, .width = 32};
  recipe.stages = {stage("codec", Trains::kAutoencoder, 100, still)};
  const auto run = trainer(recipe);
  std::vector<double> losses;
  while (!run->is_done()) losses.push_back(run->step().loss);
  const double first = std::accumulate(losses.begin(), losses.begin() + 5, 0.0);
  const double last = std::accumulate(losses.end() - 5, losses.end(), 0.0);
  EXPECT_LT(last, 0.7 * first);
  at::Tensor clips, reconstructions;
  EXPECT_GT(run->reconstruct(still, 4, clips, reconstructions), 8);
  EXPECT_EQ(clips.sizes(), (std::vector<int64_t>{4, 3, 1, 32, 32}));
}

TEST_F(Training, a_loss_that_is_no_number_names_stage_and_step_and_changes_nothing) {
  Recipe recipe = tiny_recipe();
  recipe.stages.erase(recipe.stages.begin());
  const auto run = trainer(recipe);
  run->step();
  NamedTensors poisoned = copy(run->state());
  poisoned.at("weights/transformer/blocks.1.ffn.net.2.weight").fill_(std::numeric_limits<float>::infinity());
  run->set_state(poisoned);
  const NamedTensors before = copy(run->state());
  EXPECT_THAT(test::message_of<Error>([&] { run->step(); }), HasSubstr("stage stills, step 1: the loss is"));
  expect_equal(run->state(), before);
}

// d loss / d (weights along their gradient) by central differences: |gradient|^2.
void check_gradient(const NamedTensors& weights, const std::function<at::Tensor()>& loss) {
  for (const auto& [name, tensor] : weights) at::Tensor(tensor).set_requires_grad(true);
  loss().backward();
  double squares = 0;
  std::vector<std::pair<at::Tensor, at::Tensor>> steps;
  for (const auto& [name, tensor] : weights) {
    if (!tensor.grad().defined()) continue;
    squares += tensor.grad().to(at::kDouble).square().sum().item<double>();
    steps.emplace_back(tensor, tensor.grad().clone());
  }
  ASSERT_GT(squares, 0);
  const at::NoGradGuard no_grad;
  const double length = 2e-2 / std::sqrt(squares);
  const auto move = [&](double by) {
    for (auto& [tensor, direction] : steps) tensor.add_(direction, by);
  };
  move(length);
  const double above = loss().item<double>();
  move(-2 * length);
  const double below = loss().item<double>();
  move(length);
  EXPECT_NEAR((above - below) / (2 * length) / squares, 1, 0.02);
}

TEST_F(Training, gradients_of_transformer_text_encoder_and_LoRA_are_those_of_finite_differences) {
  const auto model = models::open_trainable_model("wan_tiny");
  NamedTensors transformer = model->initial_weights("transformer", 1), text = model->initial_weights("text_encoder", 2);
  transformer.at("proj_out.weight") = draw_noise(9, transformer.at("proj_out.weight").sizes().vec()).mul_(0.1);
  const LoraWeights lora(transformer, {.rank = 2, .alpha = 2, .targets = {"attn1.to_v", "attn2.to_out.0"}}, 4,
                         at::kCPU);
  for (const auto& [name, tensor] : lora.weights()) at::Tensor(tensor).add_(draw_noise(5, tensor.sizes().vec()), 0.1);
  RecordedAttention attention({});
  const auto cache = caching::make_step_cache("none");
  models::BlockRunner blocks(*cache);
  const std::vector<std::vector<int32_t>> ids = {{5, 9, 1}, {7, 1}};
  const auto loss = [&] {
    const auto dit = model->bind_dit(transformer, at::kFloat, at::kCPU, lora.patches(lora.weights()));
    const auto states =
        model->bind_text_encoder(text, at::kFloat, at::kCPU)->encode_together(ids).split_with_sizes({3, 2});
    std::vector<models::Conditioning> prompts;
    for (const at::Tensor& rows : states) prompts.push_back({.text = {.states = rows, .padded_tokens = 8}});
    return velocity_loss(*dit,
                         {.latents = draw_noise(1, {2, 16, 2, 4, 4}),
                          .noise = draw_noise(2, {2, 16, 2, 4, 4}),
                          .sigmas = at::tensor({0.3F, 0.8F}),
                          .conditioning = dit->prepare(prompts)},
                         attention, blocks);
  };
  check_gradient(transformer, loss);
  check_gradient(text, loss);
  check_gradient(lora.weights(), loss);
}

TEST_F(Training, prompts_together_give_what_each_gives_alone) {
  const auto model = models::open_trainable_model("wan_tiny");
  const auto dit = model->bind_dit(model->initial_weights("transformer", 1), at::kFloat, at::kCPU, nullptr);
  const auto encoder = model->bind_text_encoder(model->initial_weights("text_encoder", 2), at::kFloat, at::kCPU);
  const std::vector<std::vector<int32_t>> ids = {{5, 9, 22, 1}, {7, 1}};
  const at::Tensor together = encoder->encode_together(ids);
  EXPECT_LT((together.narrow(0, 0, 4) - encoder->encode(ids[0])).abs().max().item<float>(), 2e-6);
  EXPECT_LT((together.narrow(0, 4, 2) - encoder->encode(ids[1])).abs().max().item<float>(), 2e-6);
}

TEST_F(Training, samples_are_functions_of_their_index) {
  const ClipKind kind{.frames = 3, .height = 24, .width = 40, .zoom = 2};
  const ClipBatch whole = draw_clips(kind, 11, 0, 5), part = draw_clips(kind, 11, 3, 2);
  EXPECT_TRUE(at::equal(whole.pixels.narrow(0, 3, 2), part.pixels));
  EXPECT_EQ(whole.captions[3], part.captions[0]);
  EXPECT_FALSE(at::equal(whole.pixels[0], draw_clips(kind, 12, 0, 1).pixels[0]));
  EXPECT_TRUE(at::equal(sample_noise(4, 2, 1, {3, 5})[0], sample_noise(4, 0, 3, {3, 5})[2]));
  const at::Tensor sigmas = sample_sigmas(4, 0, 4000, 3);
  // The mean of 3u / (1 + 2u) over u in [0, 1] is 1.5 - 0.75 ln 3.
  EXPECT_NEAR(sigmas.mean().item<float>(), 1.5 - 0.75 * std::log(3.0), 0.01);
  EXPECT_GE(sigmas.min().item<float>(), 0);
  EXPECT_LE(sigmas.max().item<float>(), 1);
  std::map<int64_t, int> counts;
  std::vector<ClipKind> kinds = {kind, kind};
  kinds[0].share = 3, kinds[1].batch_size = 7;
  for (int64_t step = 0; step < 4000; ++step) ++counts[kind_at(kinds, 5, step).batch_size];
  EXPECT_NEAR(counts[7] / 4000.0, 0.25, 0.02);
}

TEST_F(Training, a_LoRA_target_that_does_not_exist_is_named) {
  Recipe recipe = tiny_recipe();
  recipe.stages.back().lora.targets = {"attn1.to_qq"};
  recipe.stages = {recipe.stages.back()};
  EXPECT_THAT(test::message_of<ConfigError>([&] { trainer(recipe); }),
              AllOf(HasSubstr("attn1.to_qq"), HasSubstr("did you mean 'attn1.to_q'")));
}

TEST(TrainingCheckpoint, a_damaged_one_is_passed_over_for_the_one_before) {
  const test::TempFolder folder;
  const auto state = [](float value) {
    return NamedTensors{{"w", at::full({100}, value)}, {"k", at::ones({1}, at::kLong)}};
  };
  EXPECT_FALSE(load_checkpoint(folder.path(), {"r", "t"}));
  save_checkpoint(folder.path(), state(1), 0, {"r", "s"});
  save_checkpoint(folder.path(), state(2), 0, {"r", "s"});
  EXPECT_EQ(load_checkpoint(folder.path(), {"r", "t"})->state.at("w")[0].item<float>(), 2);
  EXPECT_THAT(test::message_of<ConfigError>([&] {
                load_checkpoint(folder.path(), {"other", "s"});
              }),
              HasSubstr("belongs to another recipe"));
  const auto damage = [&](const std::string& name) {
    std::string bytes = test::read_file(folder / name);
    bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] + 1);
    folder.write(name, bytes);
  };
  damage("checkpoint.safetensors");
  EXPECT_EQ(load_checkpoint(folder.path(), {"r", "t"})->state.at("w")[0].item<float>(), 1);
  damage("checkpoint.previous.safetensors");
  EXPECT_THAT(
      test::message_of<WeightError>([&] {
        load_checkpoint(folder.path(), {"r", "t"});
      }),
      AllOf(HasSubstr("checkpoint.safetensors"), HasSubstr("checkpoint.previous.safetensors"), HasSubstr("damaged")));
}

}  // namespace
}  // namespace strobe::training
