// strobe plan and strobe models as a user runs them.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct PlanCli : test::Cli {};

TEST_F(PlanCli, tells_what_a_known_model_costs) {
  const auto result = strobe({"plan", "--model", "wan_1_3b"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"81 frames 832x480", "50 steps of unipc", "100 forwards", "21 x 30 x 52 = 32760",
                           "self attention", "69.2 %", "1418996800", "denoise", "GFLOP/s"}) {
    EXPECT_THAT(result.out, HasSubstr(part));
  }
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(PlanCli, gives_the_same_plan_as_json_with_keys_that_stay) {
  const auto result = strobe({"plan", "--model", "wan22_a14b", "--size", "1280x720", "--json", "-"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const ConfigNode plan = weights::parse_json(result.out, "plan");
  EXPECT_EQ(plan.at("schema").as_integer(), 1);
  EXPECT_TRUE(plan.at("folder").is_null());
  EXPECT_EQ(plan.at("tokens").at("video").as_integer(), 75'600);
  EXPECT_EQ(plan.at("tokens").at("forwards").as_integer(), 80);
  EXPECT_EQ(plan.at("tokens").at("steps_by_expert").as_list().size(), 2U);
  EXPECT_EQ(plan.at("attention").at("density").as_number(), 1.0);
  EXPECT_EQ(plan.at("weights").as_list().size(), 4U);
  const ConfigNode& flops = plan.at("flops");
  double sum = 0, shares = 0;
  for (const char* part : {"self_attention", "cross_attention", "linear", "text", "vae"}) {
    sum += flops.at(part).as_number();
    shares += flops.at("shares").at(part).as_number();
  }
  EXPECT_NEAR(sum / flops.at("total").as_number(), 1, 1e-12);
  EXPECT_NEAR(shares, 1, 1e-12);
  for (const char* stage : {"text", "denoise", "decode"}) {
    EXPECT_GT(plan.at("memory_estimate").at(stage).at("activation_bytes").as_integer(), 0) << stage;
    EXPECT_GT(plan.at("time_estimate_s").at(stage).as_number(), 0) << stage;
  }
  for (const char* rate : {"linear", "attention", "convolution"}) {
    EXPECT_GT(plan.at("rates_flops_per_s").at(rate).as_number(), 1e8) << rate;
  }
  EXPECT_EQ(strobe({"plan", "--json", "plan.json"}).exit_code, 0);
  EXPECT_EQ(weights::load_json(folder / "plan.json").at("model").as_string(), "wan_tiny");
  EXPECT_EQ(strobe({"plan", "--json", "plan.json"}).exit_code, 2);
}

TEST_F(PlanCli, rounds_and_refuses_as_generate_does) {
  const auto rounded = strobe({"plan", "--model", "wan22_ti2v_5b", "--size", "850x490", "--num-frames", "80"});
  EXPECT_EQ(rounded.exit_code, 0);
  EXPECT_THAT(rounded.err, HasSubstr("--width 850 is not a multiple of 32: using 832"));
  EXPECT_THAT(rounded.out, HasSubstr("81 frames 832x480"));
  EXPECT_EQ(strobe({"plan", "--num-frames", "6", "--strict"}).exit_code, 2);
  // Without guidance there is one branch and one prompt.
  EXPECT_THAT(strobe({"plan", "--cfg-scale", "1", "--steps", "7"}).out, HasSubstr(": 7 forwards"));
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"plan", "--model", "wan_14bb"}, "did you mean 'wan_14b'?"},
      {{"plan", "--attention", "dens"}, "did you mean 'dense'?"},
      {{"plan", "--scheduler", "unpc"}, "did you mean 'unipc'?"},
      {{"plan", "--step", "x"}, "did you mean --steps?"},
      {{"plan", "--text-tokens", "513"}, "at most 512"},
      {{"generate", "-p", "x", "--model", "wan_14b"}, "make-random"},
      {{"models", "make-random", "m", "--like", "wan_tny"}, "did you mean 'wan_tiny'?"},
      {{"models", "make-random", "m", "--like", "wan_tiny", "--zeroes"}, "did you mean --zeros?"},
      {{"models", "make-random", "m", "--like", "wan_tiny", "--dtype", "bf61"}, "did you mean 'bf16'?"},
      {{"models", "make-random", "m"}, "--like"},
  };
  for (const auto& [arguments, expected] : cases) {
    const auto result = strobe(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments.back();
    EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_THAT(result.out, IsEmpty());
  }
  EXPECT_FALSE(fs::exists(folder / "m"));
}

TEST_F(PlanCli, takes_a_run_file_that_was_written_for_generate) {
  folder.write("run.yaml",
               "schema: 1\nsize: [17, 128, 128]\nprompt: a red circle\nseed: 7\noutput: a.mp4\ncrf: 20\n"
               "sampling: {num_inference_steps: 3}\nattention: {method: window, window: [1, 1, 1], block_size: 32}\n");
  const auto plan = strobe({"plan", "--config", "run.yaml", "--json", "-"});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  const ConfigNode node = weights::parse_json(plan.out, "plan");
  EXPECT_EQ(node.at("clip").at("num_inference_steps").as_integer(), 3);
  EXPECT_EQ(node.at("attention").at("method").as_string(), "window");
  EXPECT_EQ(strobe({"generate", "--config", "run.yaml", "--dry-run"}).exit_code, 0);

  // What plan leaves out is checked all the same; what is typed for plan must be plan's.
  const auto set = strobe({"plan", "--config", "run.yaml", "--set", "prompt=x"});
  EXPECT_EQ(set.exit_code, 2);
  EXPECT_THAT(set.err, HasSubstr("unknown key 'prompt'"));
  folder.write("unknown.yaml", "schema: 1\npromt: a\n");
  const auto unknown = strobe({"plan", "--config", "unknown.yaml"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("unknown.yaml:2:8: unknown key 'promt'; did you mean 'prompt'?"));
  folder.write("type.yaml", "schema: 1\ncrf: high\n");
  EXPECT_THAT(strobe({"plan", "--config", "type.yaml"}).err, HasSubstr("type.yaml:2:6: crf: expected"));
}

TEST_F(PlanCli, makes_a_random_checkpoint_that_generates_and_says_what_it_is) {
  ASSERT_EQ(strobe({"models", "make-random", "small", "--like", "wan_tiny", "--seed", "3"}).exit_code, 0);
  const auto models = strobe({"models", "small"});
  EXPECT_THAT(models.out, HasSubstr("random weights"));
  const auto clip = strobe({"generate", "--model", "small", "-p", "a red circle", "--num-frames", "5", "--size",
                            "64x48", "--steps", "1", "-o", "clip.mp4"});
  EXPECT_EQ(clip.exit_code, 0) << clip.err;
  EXPECT_THAT(clip.err, HasSubstr("random weights"));
  EXPECT_TRUE(fs::exists(folder / "clip.mp4"));
  EXPECT_EQ(strobe({"models", "make-random", "small", "--like", "wan_tiny"}).exit_code, 2);
}

TEST_F(PlanCli, reads_a_checkpoint_of_zeros_of_the_largest_size) {
  ASSERT_EQ(strobe({"models", "make-random", "large", "--like", "wan_14b", "--zeros"}).exit_code, 0);
  const auto models = strobe({"models", "large"});
  EXPECT_THAT(models.out, HasSubstr("14288.5 M"));
  EXPECT_THAT(models.out, HasSubstr("zero weights"));
  const auto plan = strobe({"plan", "--model", "large"});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("81 frames 1280x720"));
  EXPECT_THAT(plan.out, HasSubstr("14288491584"));
}

TEST_F(PlanCli, leaves_nothing_of_a_checkpoint_that_the_system_refuses) {
  // A limit on the size of a file stands for a full disk.
  const auto result = test::run_process(
      {"/bin/sh", "-c", "ulimit -f 64; exec " + std::string(STROBE_BINARY) + " models make-random m --like wan_tiny"},
      {.folder = folder.path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("write: File too large"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(PlanCli, lists_what_is_known) {
  const auto models = strobe({"models"});
  EXPECT_EQ(models.exit_code, 0);
  for (const char* part : {"tiny-random", "wan_1_3b", "1.42 G", "2 x 14.29 G", "wan22_ti2v_5b", "704.7 M"}) {
    EXPECT_THAT(models.out, HasSubstr(part));
  }
}

}  // namespace
}  // namespace strobe
