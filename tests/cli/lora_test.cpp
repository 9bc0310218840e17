// `generate --lora` as a user runs it, on the default model (width 128).
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

struct CliLora : test::Cli {
  test::ProcessResult generate(const std::vector<std::string>& loras, const std::string& name) const {
    std::vector<std::string> arguments = {"generate", "-p", "a red circle"};
    arguments.insert(arguments.end(), {"--num-frames", "5", "--size", "64x48", "--steps", "1"});
    arguments.insert(arguments.end(), {"-o", name + ".mp4", "--save-latents", name + ".safetensors"});
    for (const std::string& lora : loras) arguments.insert(arguments.end(), {"--lora", lora});
    return strobe(arguments);
  }
  // The values alone: the header also holds the hash of the request.
  std::string latents(const std::string& name) const {
    const at::Tensor values = weights::open_safetensors(folder / (name + ".safetensors"))->read("latents");
    return {static_cast<const char*>(values.data_ptr()), values.nbytes()};
  }
  void save_lora(const std::string& name, const std::string& module, int64_t width = 128) {
    weights::save_safetensors(folder / name, {{module + ".lora_A.weight", test::fill_input(0, {4, width}, 0.3)},
                                              {module + ".lora_B.weight", test::fill_input(1, {width, 4}, 0.3)}});
  }
};

TEST_F(CliLora, changes_the_clip_by_its_weight) {
  save_lora("style.safetensors", "transformer.blocks.0.attn1.to_v");
  ASSERT_EQ(generate({}, "none").exit_code, 0);
  const auto whole = generate({"style.safetensors"}, "whole");
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_THAT(whole.err, HasSubstr("LoRA style.safetensors: 1 modules of transformer, rank 4, scale 1, strength 1"));
  EXPECT_FALSE(latents("whole") == latents("none"));
  EXPECT_EQ(generate({"style.safetensors:1"}, "one").exit_code, 0);
  EXPECT_TRUE(latents("one") == latents("whole"));
  EXPECT_EQ(generate({"style.safetensors:-0.5"}, "half").exit_code, 0);
  EXPECT_FALSE(latents("half") == latents("whole"));
  EXPECT_FALSE(latents("half") == latents("none"));
  EXPECT_EQ(generate({"style.safetensors:0"}, "zero").exit_code, 0);
  EXPECT_TRUE(latents("zero") == latents("none"));
}

TEST_F(CliLora, merges_several_files) {
  save_lora("first.safetensors", "transformer.blocks.0.attn1.to_v");
  save_lora("second.safetensors", "diffusion_model.blocks.1.self_attn.v");
  EXPECT_EQ(generate({"first.safetensors"}, "a").exit_code, 0);
  const auto both = generate({"first.safetensors", "second.safetensors:0.5"}, "both");
  EXPECT_EQ(both.exit_code, 0) << both.err;
  EXPECT_THAT(both.err, AllOf(HasSubstr("LoRA first.safetensors"), HasSubstr("LoRA second.safetensors")));
  EXPECT_FALSE(latents("both") == latents("a"));
}

TEST_F(CliLora, refuses_files_and_weights_that_are_none) {
  save_lora("style.safetensors", "transformer.blocks.0.attn1.to_v");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"missing.safetensors", "--lora missing.safetensors: no such file"},
      {"missing.safetensors:0.5", "--lora missing.safetensors: no such file"},
      {".", "not a file"},
      {"style.safetensors:nan", "expected a finite weight"},
      {"style.safetensors:x", "--lora style.safetensors:x: no such file"},
      {":0.5", "expected FILE or FILE:WEIGHT"}};
  for (const auto& [lora, message] : cases) {
    const auto result = generate({lora}, "x");
    EXPECT_EQ(result.exit_code, 2) << lora;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  EXPECT_FALSE(fs::exists(folder / "x.mp4"));
}

TEST_F(CliLora, fails_before_any_work_where_a_file_does_not_fit) {
  save_lora("strange.safetensors", "unet.down_blocks.0.proj_in");
  save_lora("wide.safetensors", "transformer.blocks.0.attn1.to_v", 64);
  folder.write("broken.safetensors", "not a file of tensors");
  folder.write("style.gguf", "x");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"strange.safetensors", "no module of this LoRA fits the model"},
      {"wide.safetensors", "[64, 64] does not fit blocks.0.attn1.to_v.weight [128, 128]"},
      {"broken.safetensors", "broken.safetensors"},
      {"style.gguf", "a LoRA file is .safetensors"}};
  for (const auto& [lora, message] : cases) {
    const auto result = generate({lora}, "x");
    EXPECT_EQ(result.exit_code, 1) << lora;
    EXPECT_THAT(result.err, AllOf(HasSubstr(message), Not(HasSubstr("denoise"))));
  }
  EXPECT_FALSE(fs::exists(folder / "x.mp4"));
}

TEST_F(CliLora, names_the_tensor_that_holds_nan) {
  at::Tensor broken = test::fill_input(1, {128, 4}, 0.3);
  broken[5][1] = std::numeric_limits<float>::quiet_NaN();
  const std::string module = "transformer.blocks.0.attn1.to_v";
  weights::save_safetensors(
      folder / "nan.safetensors",
      {{module + ".lora_A.weight", test::fill_input(0, {4, 128}, 0.3)}, {module + ".lora_B.weight", broken}});
  const auto result = generate({"nan.safetensors"}, "x");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("nan.safetensors: transformer.blocks.0.attn1.to_v.lora_B.weight: holds NaN"),
                                Not(HasSubstr("denoise"))));
  EXPECT_FALSE(fs::exists(folder / "x.mp4"));
  EXPECT_FALSE(has_leftovers());
}

TEST_F(CliLora, reads_files_that_pytorch_saved) {
  const at::Tensor n = at::arange(128, at::kFloat);
  weights::save_safetensors(folder / "lora.safetensors",
                            {{"transformer.blocks.0.attn1.to_v.lora_A.weight", ((n - 64) / 256).reshape({1, 128})},
                             {"transformer.blocks.0.attn1.to_v.lora_B.weight", ((n - 60) / 128).reshape({128, 1})}});
  ASSERT_EQ(generate({}, "none").exit_code, 0);
  ASSERT_EQ(generate({"lora.safetensors"}, "safetensors").exit_code, 0);
  EXPECT_FALSE(latents("safetensors") == latents("none"));
  for (const char* name : {"lora.pt", "lora.pth"}) {
    fs::copy_file(test::golden_path("weights/lora.pt"), folder / name);
    const auto result = generate({std::string(name) + ":1"}, name);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr(std::string("LoRA ") + name + ": 1 modules of transformer, rank 1"));
    EXPECT_TRUE(latents(name) == latents("safetensors")) << name;
  }
}

// A tiny model of two experts with the same weights: steps of high noise by `transformer`, of low noise by
// `transformer_2`.
struct CliExpertLora : CliLora {
  CliExpertLora() {
    const fs::path root = folder / "model";
    fs::copy(test::golden_path("wan_a/checkpoint"), root, fs::copy_options::recursive);
    fs::copy(root / "transformer", root / "transformer_2");
    ConfigNode index = weights::load_json(root / "model_index.json");
    index.set("transformer_2", index.at("transformer"));
    index.set("boundary_ratio", ConfigNode::number(0.875));
    folder.write("model/model_index.json", weights::to_json(index));
    save_lora("style_high_noise.safetensors", "transformer.blocks.0.attn1.to_v", 64);
    save_lora("style_low_noise.safetensors", "transformer.blocks.0.attn1.to_v", 64);
    save_lora("style.safetensors", "transformer.blocks.0.attn1.to_v", 64);
    save_lora("second.safetensors", "transformer_2.blocks.0.attn1.to_v", 64);
  }

  // The latents of a clip of `steps`; the first step is one of high noise, the second one of low noise.
  std::string make(const std::vector<std::string>& loras, const std::string& steps) const {
    static int number = 0;
    const std::string name = fmt::format("clip{}", number++);
    std::vector<std::string> arguments = {"generate", "-p",    "a cat",   "--model", "model", "--num-frames", "5",
                                          "--size",   "64x48", "--steps", steps,     "-o",    name + ".mp4"};
    arguments.insert(arguments.end(), {"--save-latents", name + ".safetensors"});
    for (const std::string& lora : loras) arguments.insert(arguments.end(), {"--lora", lora});
    const auto result = strobe(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return latents(name);
  }
};

TEST_F(CliExpertLora, reaches_the_steps_of_its_expert_alone) {
  const std::string none = make({}, "1");
  EXPECT_FALSE(make({"style_high_noise.safetensors"}, "1") == none);
  EXPECT_TRUE(make({"style_low_noise.safetensors"}, "1") == none);
  EXPECT_TRUE(make({"second.safetensors"}, "1") == none);
}

TEST_F(CliExpertLora, is_chosen_by_the_prefix_of_its_keys_or_the_name_of_its_file) {
  const std::string none = make({}, "2");
  const std::string low = make({"style_low_noise.safetensors"}, "2"),
                    high = make({"style_high_noise.safetensors"}, "2");
  EXPECT_FALSE(low == none);
  EXPECT_FALSE(high == none);
  EXPECT_FALSE(high == low);
  EXPECT_TRUE(make({"second.safetensors"}, "2") == low);
  const std::string both = make({"style.safetensors"}, "2");
  EXPECT_TRUE(make({"style_high_noise.safetensors", "style_low_noise.safetensors"}, "2") == both);
  EXPECT_FALSE(both == low || both == high);
}

}  // namespace
}  // namespace strobe
