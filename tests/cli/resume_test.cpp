// Runs that end early: what is kept, and that going on gives the same bits.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/support/compare.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct CliResume : test::Cli {
  std::vector<std::string> command(const std::string& name, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"generate",
                                          "-p",
                                          "a red circle",
                                          "--num-frames",
                                          "5",
                                          "--size",
                                          "96x64",
                                          "--steps",
                                          "5",
                                          "--checkpoint-every",
                                          "1",
                                          "-o",
                                          name + ".mkv",
                                          "--lossless",
                                          "--save-latents",
                                          name + ".safetensors"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  at::Tensor latents(const std::string& name) const {
    return weights::open_safetensors(folder / (name + ".safetensors"))->read("latents");
  }
  std::string frame_hash(const std::string& name) const {
    return weights::load_json(folder / (name + ".json")).at("frame_sha256").as_string();
  }
  int64_t files_with(const std::string& part) const {
    int64_t count = 0;
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      if (entry.path().filename().string().find(part) != std::string::npos) ++count;
    }
    return count;
  }
};

TEST_F(CliResume, goes_on_bit_equal_after_a_kill_at_any_step) {
  ASSERT_EQ(strobe(command("whole")).exit_code, 0);
  int cuts = 0;
  for (const char* moment : {"denoise 1/", "denoise 2/", "denoise 3/", "denoise 5/", "decode 1/"}) {
    const std::string name = fmt::format("cut_{}", ++cuts);
    const auto killed = strobe(command(name), {.interrupt_after = moment, .signal = SIGKILL});
    if (killed.exit_code == 0) continue;  // it was through before the signal came
    EXPECT_EQ(killed.exit_code, 137) << killed.err;
    EXPECT_FALSE(fs::exists(folder / (name + ".mkv"))) << moment;
    const auto resumed = strobe(command(name, {"--resume"}));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_TRUE(at::equal(latents(name), latents("whole"))) << moment;
    EXPECT_EQ(frame_hash(name), frame_hash("whole")) << moment;
  }
  EXPECT_EQ(files_with(".checkpoint"), 0);
}

TEST_F(CliResume, keeps_a_checkpoint_when_interrupted_and_says_how_to_go_on) {
  const auto cut = strobe(command("cut"), {.interrupt_after = "denoise 2/"});
  ASSERT_EQ(cut.exit_code, 130) << cut.err;
  EXPECT_THAT(cut.err, HasSubstr("--resume"));
  EXPECT_EQ(files_with(".checkpoint"), 1);
  const auto resumed = strobe(command("cut", {"--resume"}));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("going on after step"));
  EXPECT_EQ(files_with(".checkpoint"), 0);
  // A finished clip is left as it is.
  const auto again = strobe(command("cut", {"--resume"}));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("finished already"));
}

TEST_F(CliResume, ends_at_once_at_the_second_interrupt) {
  const auto result = strobe({"generate", "-p", "x", "--steps", "400", "--size", "256x256", "-o", "x.mp4"},
                             {.interrupt_after = "x.mp4", .signals = 2});
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_FALSE(fs::exists(folder / "x.mp4"));
}

TEST_F(CliResume, keeps_the_latents_when_the_disk_is_full_while_encoding) {
  std::string shell = "ulimit -f 260; exec \"$0\" \"$@\"";
  std::vector<std::string> arguments = {"/bin/bash", "-c", shell, STROBE_BINARY, "generate"};
  const std::vector<std::string> clip = {"-p",     "a red circle", "--num-frames", "13",
                                         "--size", "128x96",       "--steps",      "2",
                                         "-o",     "a.mkv",        "--lossless",   "--deterministic"};
  arguments.insert(arguments.end(), clip.begin(), clip.end());
  const auto full = test::run_process(
      arguments,
      {.environment = {{"XDG_CACHE_HOME", ::testing::TempDir() + "strobe_cli_cache"}}, .folder = folder.path()});
  EXPECT_EQ(full.exit_code, 1) << full.err;
  EXPECT_THAT(full.err, HasSubstr("the work so far is kept in a.mkv."));
  EXPECT_FALSE(fs::exists(folder / "a.mkv"));
  EXPECT_FALSE(has_leftovers());
  std::vector<std::string> again = {"generate", "--resume"};
  again.insert(again.end(), clip.begin(), clip.end());
  const auto resumed = strobe(again);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, ::testing::Not(HasSubstr("denoise 1/")));
  EXPECT_TRUE(fs::exists(folder / "a.mkv"));
}

TEST_F(CliResume, makes_the_same_clip_again_from_the_clip_alone) {
  ASSERT_EQ(generate({"-o", "clip.mp4"}).exit_code, 0);
  fs::remove(folder / "clip.json");
  const auto same = strobe({"replay", "clip.mp4"});
  EXPECT_EQ(same.exit_code, 0) << same.err;
  EXPECT_THAT(same.err, HasSubstr("bit for bit"));
  const auto shown = strobe({"replay", "clip.mp4", "--dry-run"});
  EXPECT_THAT(shown.out, HasSubstr("strobe generate --prompt 'a red circle'"));
  EXPECT_THAT(shown.out, HasSubstr("--num-inference-steps 2"));
  EXPECT_EQ(strobe({"replay", "clip.mp4", "--max-vram", "0.01"}).exit_code, 3);
  EXPECT_THAT(strobe({"replay", "clip.mp4", "--offload", "layers", "-v"}).err,
              ::testing::AllOf(HasSubstr("offload layers"), HasSubstr("bit for bit")));

  ASSERT_EQ(generate({"-o", "other.mkv", "--lossless", "-s", "3"}).exit_code, 0);
  ConfigNode record = weights::load_json(folder / "other.json");
  record.set("frame_sha256", ConfigNode::string("0"));
  folder.write("forged.json", weights::to_json(record));
  const auto differs = strobe({"replay", "forged.json", "-o", "kept.mkv"});
  EXPECT_EQ(differs.exit_code, 1);
  EXPECT_THAT(differs.err, HasSubstr("the frames differ"));
  EXPECT_TRUE(fs::exists(folder / "kept.mkv"));
  folder.write("note.json", "{}");
  EXPECT_EQ(strobe({"replay", "note.json"}).exit_code, 2);
  EXPECT_EQ(strobe({"replay", "missing.mp4"}).exit_code, 2);
}

TEST_F(CliResume, makes_a_clip_again_with_as_many_threads_as_then) {
  ASSERT_EQ(generate({"-o", "clip.mkv", "--lossless", "--threads", "1"}).exit_code, 0);
  EXPECT_THAT(strobe({"replay", "clip.mkv", "--dry-run"}).out, HasSubstr("--threads 1"));
  const auto same = strobe({"replay", "clip.mkv"});
  EXPECT_EQ(same.exit_code, 0) << same.err;
  EXPECT_THAT(same.err, HasSubstr("bit for bit"));
  EXPECT_THAT(same.err, ::testing::Not(HasSubstr("the last bits may differ")));
  // Another number counts when it is asked for; whether the bits are the same is the machine's matter.
  const auto other = strobe({"replay", "clip.mkv", "--threads", "2"});
  EXPECT_THAT(other.err, HasSubstr("made with 1 thread, --threads asks for 2: the last bits may differ"));
  ConfigNode record = weights::load_json(folder / "clip.json");
  ConfigNode ran = record.at("ran");
  ran.set("threads", ConfigNode::integer(1'000'000));
  record.set("ran", ran);
  folder.write("forged.json", weights::to_json(record));
  EXPECT_EQ(strobe({"replay", "forged.json"}).exit_code, 2);
}

TEST_F(CliResume, names_the_weights_that_are_not_finite) {
  const fs::path model = folder / "model";
  fs::copy(test::golden_path("wan_a/checkpoint"), model, fs::copy_options::recursive);
  const fs::path file = model / "transformer" / "diffusion_pytorch_model.safetensors";
  const auto source = weights::open_safetensors(file);
  std::map<std::string, at::Tensor> tensors;
  for (const weights::TensorInfo& info : source->tensors()) tensors.emplace(info.name, source->read(info.name).clone());
  tensors.at("blocks.1.ffn.net.2.bias").view(-1)[0] = std::numeric_limits<float>::quiet_NaN();
  weights::save_safetensors(file, tensors);
  const auto result = generate({"--model", "model", "-o", "x.mp4"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("step 1 is not finite"));
  EXPECT_THAT(result.err, HasSubstr("blocks.1.ffn.net.2.bias"));
  EXPECT_FALSE(fs::exists(folder / "x.mp4"));
}

}  // namespace
}  // namespace strobe
