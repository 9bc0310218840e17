// strobe train through the program: a whole run, cut runs, and mistakes.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/fault.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(schema: 1
model: wan_tiny
seed: 5
statistics_clips: 2
sample_prompts: 2
sample_steps: 2
checkpoint_minutes: 0.001
stages:
  - {name: codec, trains: vae, samples: 6, clips: ["scenes:frames=5,height=32,width=32,batch_size=2"]}
  - {name: stills, trains: transformer+text, samples: 4, clips: ["scenes:height=32,width=32,batch_size=2"]}
  - {name: clips, samples: 4, attention: "radial:dense_steps=0,block_size=4", clips: ["scenes:frames=5,height=32,width=32,batch_size=2"]}
)";

struct TrainCli : test::Cli {
  TrainCli() { folder.write("run.yaml", kRecipe); }
  test::ProcessResult train(const std::string& output, const std::vector<std::string>& more = {},
                            const test::ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = {"train", "run.yaml", "-o", output, "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments, options);
  }
  std::string weights(const std::string& run) const {
    std::string all;
    for (const char* file :
         {"transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"}) {
      all += test::read_file(folder.path() / run / "model" / (std::string(file) + ".safetensors"));
    }
    return all;
  }
};

TEST_F(TrainCli, a_run_makes_a_model_that_generate_takes) {
  const auto run = train("run");
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.err, AllOf(HasSubstr("codec (1/3)"), HasSubstr("psnr_db"), HasSubstr("stills (2/3)"),
                             HasSubstr("validation_loss"), HasSubstr("GFLOP/s"), HasSubstr("done; the model is in")));
  for (const char* file : {"recipe.yaml", "log.jsonl", "checkpoint.safetensors", "samples/codec-00000006.png",
                           "samples/clips-00000004.png", "model/model_index.json"}) {
    EXPECT_TRUE(fs::exists(folder / "run" / file)) << file;
  }
  EXPECT_FALSE(has_leftovers());
  const auto made = strobe({"generate", "--model", "run/model", "-p", "a small red circle moving left", "--num-frames",
                            "5", "--size", "32x32", "--steps", "2", "-o", "a.mp4"});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_TRUE(fs::exists(folder / "a.mp4"));
}

TEST_F(TrainCli, a_run_that_was_killed_or_interrupted_ends_as_one_that_was_not) {
  ASSERT_EQ(train("whole", {"-q"}).exit_code, 0);
  test::ProcessOptions kill;
  kill.interrupt_after = "samples/codec-";
  kill.signal = SIGKILL;
  EXPECT_EQ(train("cut", {}, kill).exit_code, 128 + SIGKILL);
  test::ProcessOptions interrupt;
  interrupt.interrupt_after = "going on from";
  const auto second = train("cut", {"--resume"}, interrupt);
  EXPECT_EQ(second.exit_code, 130) << second.err;
  EXPECT_EQ(train("cut", {"--resume", "--max-steps", "1"}).exit_code, 0);
  const auto rest = train("cut", {"--resume"});
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(weights("cut"), weights("whole"));
}

TEST_F(TrainCli, a_full_disk_keeps_the_last_checkpoint) {
  ASSERT_EQ(train("run", {"--max-steps", "2"}).exit_code, 0);
  const std::string before = test::read_file(folder / "run/checkpoint.safetensors");
  const auto failed =
      train("run", {"--resume", "--max-steps", "1"}, test::with_fault(folder / "run", {.kind = "enospc", .at = 1}));
  EXPECT_EQ(failed.exit_code, 1) << failed.err;
  EXPECT_THAT(failed.err, HasSubstr("No space left on device"));
  EXPECT_EQ(test::read_file(folder / "run/checkpoint.safetensors"), before);
}

TEST_F(TrainCli, mistakes_are_one_message) {
  const auto expect = [&](const std::string& from, const std::string& to, const std::string& message) {
    std::string text = kRecipe;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    folder.write("run.yaml", text.replace(at, from.size(), to));
    const auto run = train("never");
    EXPECT_EQ(run.exit_code, 2) << run.err;
    EXPECT_THAT(run.err, HasSubstr(message)) << to;
    EXPECT_FALSE(fs::exists(folder / "never")) << to;
  };
  expect("seed: 5", "sed: 5", "run.yaml:3:6: unknown key 'sed'; did you mean 'seed'?");
  expect("samples: 6", "sampels: 6", "did you mean 'samples'?");
  expect("model: wan_tiny", "model: wan_tinny", "did you mean 'wan_tiny'?");
  expect("frames=5,height=32", "frames=4,height=32", "expected frames of the form 4 k + 1");
  expect("height=32,width=32,batch_size=2\"]}\n  - {name: stills",
         "height=40,width=32,batch_size=2\"]}\n  - {name: stills", "multiples of 16");
  expect("scenes:height", "sceens:height", "expected scenes or leaves");
  expect("name: stills", "name: codec", "two stages of one name");
  expect("trains: vae", "trains: vea", "did you mean 'vae'?");
  expect("batch_size=2", "batch_size=0", "batch_size");
  expect("radial", "radiel", "did you mean 'radial'?");
}

TEST_F(TrainCli, a_folder_that_holds_a_run_is_not_overwritten) {
  ASSERT_EQ(train("run", {"--max-steps", "1", "-q"}).exit_code, 0);
  const auto again = train("run");
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_THAT(again.err, HasSubstr("--resume goes on with it"));
  std::string text = kRecipe;
  folder.write("run.yaml", text.replace(text.find("seed: 5"), 7, "seed: 6"));
  const auto other = train("run", {"--resume"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("belongs to another recipe"));
}

}  // namespace
}  // namespace strobe
