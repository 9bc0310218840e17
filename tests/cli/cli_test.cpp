// The program as a user runs it: what it says where, what it leaves behind, and its exit codes.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>

#include "tests/cli/cli_fixture.h"
#include "tests/support/compare.h"
#include "video/video_reader.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::read_file;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

fs::path copy_of_wan_a(const fs::path& folder) {
  const fs::path copy = folder / "model";
  fs::copy(test::golden_path("wan_a/checkpoint"), copy, fs::copy_options::recursive);
  return copy;
}

TEST_F(Cli, prints_help_and_version_on_stdout) {
  const auto help = strobe({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("generate"));
  EXPECT_EQ(strobe({"generate", "--help"}).exit_code, 0);
  const auto version = strobe({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, HasSubstr("LibTorch 2.11.0"));
  EXPECT_THAT(version.out, HasSubstr("FFmpeg"));
  EXPECT_EQ(strobe({}).exit_code, 2);
}

TEST_F(Cli, answers_a_wrong_name_with_the_nearest_one) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"genrate"}, "did you mean 'generate'?"},
      {{"generate", "-p", "x", "--num-frmes", "5"}, "did you mean --num-frames?"},
      {{"generate", "-p", "x", "--scheduler", "unpc"}, "did you mean 'unipc'?"},
      {{"generate", "-p", "x", "--attention", "dens"}, "did you mean 'dense'?"},
      {{"generate", "-p", "x", "--attention-backend", "torch_dence"}, "did you mean 'torch_dense'?"},
      {{"generate", "-p", "x", "--device", "gpu"}, "unknown device 'gpu'"},
      {{"generate", "-p", "x", "--dtype", "fp23"}, "did you mean 'fp32'?"},
      {{"generate", "-p", "x", "--size", "64"}, "WIDTHxHEIGHT"},
      {{"generate", "-p", "x", "--steps", "0"}, "--num-inference-steps 0"},
      {{"generate", "-p", "x", "--flow-shift", "0"}, "--flow-shift 0"},
      {{"generate", "-p", "x", "-o", "clip.xyz"}, ".xyz"},
      {{"generate"}, "--prompt"},
  };
  for (const auto& [arguments, expected] : cases) {
    const auto result = strobe(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments.back();
    EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST_F(Cli, makes_a_clip_and_says_that_the_default_model_is_random) {
  const auto result = generate({"-o", "clip.mp4", "--save-latents", "a.safetensors", "--save-frames", "frames"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_THAT(result.err, HasSubstr("random weights"));
  at::Tensor frames = video::read_all_frames(folder.path() / "clip.mp4");
  EXPECT_EQ(frames.sizes(), at::IntArrayRef({5, 48, 64, 3}));
  at::Tensor exact = video::read_all_frames((folder.path() / "frames").string() + "/");

  // The VAE alone makes the same frames of the latents, and the same seed the same latents.
  EXPECT_EQ(strobe({"decode", "a.safetensors", "-o", "again.mkv", "--lossless"}).exit_code, 0);
  EXPECT_TRUE(at::equal(video::read_all_frames(folder.path() / "again.mkv"), exact));
  EXPECT_EQ(generate({"-o", "b.mp4", "--save-latents", "b.safetensors", "--num_frames=5"}).exit_code,
            2);  // given twice
  EXPECT_EQ(generate({"-o", "b.mp4", "--save_latents", "b.safetensors"}).exit_code, 0);
  EXPECT_EQ(generate({"-o", "c.mp4", "--save-latents", "c.safetensors", "-s", "1"}).exit_code, 0);
  EXPECT_EQ(read_file(folder.path() / "a.safetensors"), read_file(folder.path() / "b.safetensors"));
  EXPECT_NE(read_file(folder.path() / "a.safetensors"), read_file(folder.path() / "c.safetensors"));

  EXPECT_EQ(strobe({"encode", "clip.mp4", "-o", "d.safetensors"}).exit_code, 0);
  EXPECT_EQ(weights::open_safetensors(folder.path() / "d.safetensors")->read("latents").sizes(),
            at::IntArrayRef({16, 2, 6, 8}));
  EXPECT_FALSE(has_leftovers());
}

TEST_F(Cli, never_overwrites_unless_told) {
  std::ofstream(folder.path() / "clip.mp4") << "mine";
  const auto refused = generate({"-o", "clip.mp4"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--overwrite"));
  EXPECT_EQ(read_file(folder.path() / "clip.mp4"), "mine");
  EXPECT_EQ(generate({"-o", "clip.mp4", "--overwrite"}).exit_code, 0);
  EXPECT_NE(read_file(folder.path() / "clip.mp4"), "mine");
}

TEST_F(Cli, says_what_it_rounds_or_refuses_it_when_strict) {
  const auto rounded =
      strobe({"generate", "-p", "x", "--steps", "1", "--num-frames", "6", "--size", "70x50", "-o", "r.mp4"});
  EXPECT_EQ(rounded.exit_code, 0);
  EXPECT_THAT(rounded.err, HasSubstr("--width 70 is not a multiple of 16: using 64"));
  EXPECT_THAT(rounded.err, HasSubstr("--num-frames 6 is not 4k+1: using 5"));
  EXPECT_EQ(strobe({"generate", "-p", "x", "--num-frames", "6", "--strict", "-o", "s.mp4"}).exit_code, 2);
}

TEST_F(Cli, refuses_what_this_machine_cannot_do) {
  const auto bf16 = generate({"--dtype", "bf16", "-o", "a.mp4"}, {.environment = {{"STROBE_MACHINE", "no-bf16"}}});
  EXPECT_EQ(bf16.exit_code, 3);
  EXPECT_THAT(bf16.err, HasSubstr("AVX512-BF16"));
  const auto codec = generate({"--codec", "no_such_encoder", "-o", "a.mp4"});
  EXPECT_EQ(codec.exit_code, 3);
  EXPECT_THAT(codec.err, HasSubstr("libx264"));
  EXPECT_FALSE(fs::exists(folder.path() / "a.mp4"));
}

TEST_F(Cli, reports_folders_and_files_that_do_not_fit) {
  EXPECT_EQ(generate({"-o", "none/clip.mp4"}).exit_code, 1);
  EXPECT_EQ(generate({"--model", "no_such_folder"}).exit_code, 2);
  at::Tensor small = at::zeros({16, 1, 2, 2});
  weights::save_safetensors(folder.path() / "small.safetensors", {{"latents", small}});
  const auto shape = generate({"--init-latents", "small.safetensors", "-o", "x.mp4"});
  EXPECT_EQ(shape.exit_code, 1);
  EXPECT_THAT(shape.err, HasSubstr("expected [1, 16, 2, 6, 8]"));

  const fs::path model = copy_of_wan_a(folder.path());
  const fs::path weights_file = model / "transformer" / "diffusion_pytorch_model.safetensors";
  fs::resize_file(weights_file, fs::file_size(weights_file) / 2);
  const auto truncated = generate({"--model", model.string(), "-o", "x.mp4"});
  EXPECT_EQ(truncated.exit_code, 1);
  EXPECT_THAT(truncated.err, HasSubstr("diffusion_pytorch_model.safetensors"));
  EXPECT_FALSE(fs::exists(folder.path() / "x.mp4"));
  EXPECT_FALSE(has_leftovers());
}

TEST_F(Cli, refuses_two_outputs_under_one_name) {
  const auto same = generate({"-o", "a.mp4", "--save-latents", "./a.mp4"});
  EXPECT_EQ(same.exit_code, 2);
  EXPECT_THAT(same.err, HasSubstr("--output and --save-latents are the same path"));
  EXPECT_EQ(generate({"-o", "frames/", "--save-frames", "frames"}).exit_code, 2);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(Cli, finds_an_unwritable_folder_before_any_work) {
  for (const char* flag : {"-o", "--save-latents"}) {
    const std::string target = flag[1] == 'o' ? "/proc/clip.mp4" : "/proc/x.safetensors";
    const auto result = generate(flag[1] == 'o' ? std::vector<std::string>{flag, target}
                                                : std::vector<std::string>{"-o", "a.mp4", flag, target});
    EXPECT_EQ(result.exit_code, 1) << flag;
    EXPECT_THAT(result.err, HasSubstr("/proc: cannot write here"));
    EXPECT_THAT(result.err, Not(HasSubstr("denoise")));
  }
}

TEST_F(Cli, makes_the_folder_of_frames_but_none_around_it) {
  EXPECT_EQ(generate({"-o", "none/frames/"}).exit_code, 1);
  EXPECT_EQ(generate({"-o", "none/frames/f_{frame:05}.png"}).exit_code, 1);
  EXPECT_FALSE(fs::exists(folder.path() / "none"));
  EXPECT_EQ(generate({"-o", "frames/"}).exit_code, 0);
  EXPECT_TRUE(fs::exists(folder.path() / "frames" / "00004.png"));
}

TEST_F(Cli, says_a_drawn_seed_even_when_quiet) {
  const auto drawn = generate({"-q", "-s", "-1", "-o", "a.mp4"});
  EXPECT_EQ(drawn.exit_code, 0);
  EXPECT_THAT(drawn.err, ContainsRegex("seed [0-9]+"));
  EXPECT_THAT(generate({"-q", "-s", "3", "-o", "b.mp4"}).err, Not(HasSubstr("seed")));
}

TEST_F(Cli, warns_of_a_negative_prompt_without_effect) {
  EXPECT_THAT(generate({"-n", "blurry", "--cfg-scale", "1", "-o", "a.mp4"}).err, HasSubstr("has no effect"));
  EXPECT_THAT(generate({"-n", "blurry", "--cfg-scale", "2", "-o", "b.mp4"}).err, Not(HasSubstr("has no effect")));
}

TEST_F(Cli, points_to_the_help_of_the_command_that_was_typed) {
  EXPECT_THAT(strobe({"--hepl"}).err, HasSubstr("see: strobe --help"));
  EXPECT_THAT(strobe({"decode", "--hepl", "x", "-o", "y"}).err, HasSubstr("see: strobe decode --help"));
}

TEST_F(Cli, ends_after_the_step_when_interrupted) {
  const auto result = strobe({"generate", "-p", "x", "--steps", "400", "--size", "256x256", "-o", "x.mp4"},
                             {.interrupt_after = "denoise 1/"});
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_FALSE(fs::exists(folder.path() / "x.mp4"));
  EXPECT_FALSE(has_leftovers());
}

TEST_F(Cli, computes_the_reference_clip_of_a_checkpoint) {
  const ConfigNode settings = weights::load_json(test::golden_path("wan_a/reference.json"));
  const auto result = strobe({"generate",
                              "--model",
                              test::golden_path("wan_a/checkpoint"),
                              "-p",
                              settings.at("prompts").as_list()[1].as_string(),
                              "-n",
                              settings.at("negative_prompt").as_string(),
                              "--num-frames",
                              "13",
                              "--width",
                              "80",
                              "--height",
                              "64",
                              "--steps",
                              "5",
                              "--guidance-scale",
                              "5",
                              "--seed",
                              "1002",
                              "-o",
                              "out/"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  auto reference = weights::open_safetensors(test::golden_path("wan_a/reference.safetensors"));
  at::Tensor frames = video::read_all_frames((folder.path() / "out").string() + "/");
  EXPECT_GE(test::psnr_db(frames, reference->read("p1.frames_u8")), 70.0);
}

TEST_F(Cli, describes_machine_and_models_on_stdout) {
  const auto doctor = strobe({"doctor"});
  EXPECT_EQ(doctor.exit_code, 0);
  for (const char* part : {"AVX2", "libx264", "dense", "unipc", "wan"}) EXPECT_THAT(doctor.out, HasSubstr(part));
  const auto models = strobe({"models"});
  EXPECT_EQ(models.exit_code, 0);
  EXPECT_THAT(models.out, HasSubstr("tiny-random"));
}

TEST_F(Cli, runs_the_commands_of_the_readme) {
  std::ifstream in(std::string(STROBE_SOURCE_DIR) + "/README.md");
  static const std::regex form("^    tools/run (generate -p \"([^\"]*)\" -o (\\S+)|test)$");
  int generates = 0, tests = 0;
  std::smatch match;
  for (std::string line; std::getline(in, line);) {
    if (!std::regex_match(line, match, form)) continue;
    if (match[1] == "test") {
      ++tests;
      continue;
    }
    ++generates;
    EXPECT_EQ(strobe({"generate", "-p", match[2], "-o", match[3], "--steps", "1"}).exit_code, 0) << line;
    EXPECT_TRUE(fs::exists(folder.path() / match[3].str()));
  }
  EXPECT_EQ(generates, 1);
  EXPECT_EQ(tests, 1);
}

}  // namespace
}  // namespace strobe
