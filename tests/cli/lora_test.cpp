// `generate --lora` as a user runs it, on the default model (width 128).
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/support/fill.h"
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

}  // namespace
}  // namespace strobe
