// Lists of prompts: what is made, under which names, what is left as it is, what is refused.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include <fstream>

#include "core/lock_file.h"
#include "tests/cli/cli_fixture.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using test::read_file;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

struct CliJobs : test::Cli {
  // A list of clips with the default model, one step each.
  test::ProcessResult run(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"generate", "--num-frames", "5", "--size", "64x48", "--steps", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments);
  }
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder / name) << text; }
  std::vector<ConfigNode> events(const std::string& name) const {
    std::vector<ConfigNode> events;
    std::ifstream file(folder / name);
    for (std::string line; std::getline(file, line);) events.push_back(weights::parse_json(line, name));
    return events;
  }
  bool exists(const std::string& name) const { return fs::exists(folder / name); }
};

TEST_F(CliJobs, makes_every_prompt_of_a_file_under_its_own_name) {
  write("prompts.txt", "# two prompts\na red circle\n\na blue square --seed 7 --steps 2\n");
  const auto made = run({"-f", "prompts.txt", "-o", "runs/{index:04}_{slug}_{seed}.mp4", "--log-json", "log.jsonl"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.out, IsEmpty());
  EXPECT_THAT(made.err, HasSubstr("2 clips: 2 made"));
  EXPECT_TRUE(exists("runs/0000_a-red-circle_0.mp4"));
  EXPECT_TRUE(exists("runs/0001_a-blue-square_7.mp4"));
  const ConfigNode record = weights::load_json(folder / "runs/0001_a-blue-square_7.json");
  EXPECT_EQ(record.at("request").at("num_inference_steps").as_integer(), 2);
  EXPECT_EQ(record.at("place").as_string(), "prompts.txt:4");
  EXPECT_EQ(record.at("ran").at("forwards").as_integer(), 4);
  EXPECT_THAT(record.at("config").at("seed").at("origin").as_string(), HasSubstr("prompts.txt:4"));

  std::vector<std::string> kinds;
  for (const ConfigNode& event : events("log.jsonl")) kinds.push_back(event.at("event").as_string());
  EXPECT_EQ(kinds, (std::vector<std::string>{"job", "step", "done", "job", "step", "step", "done"}));

  // Again: nothing is made anew; a changed request is not trusted and not replaced.
  const auto again = run({"-f", "prompts.txt", "-o", "runs/{index:04}_{slug}_{seed}.mp4", "--skip-existing"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("2 clips: 0 made, 2 left as they were"));
  const auto changed =
      run({"-f", "prompts.txt", "-o", "runs/{index:04}_{slug}_{seed}.mp4", "--skip-existing", "--crf", "30"});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_THAT(changed.err, HasSubstr("exists already"));
}

TEST_F(CliJobs, refuses_a_bad_line_or_makes_the_others) {
  write("prompts.txt", "a red circle\na blue square --sed 7\na green star\n");
  const auto refused = run({"-f", "prompts.txt", "-o", "a/"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("prompts.txt:2:"));
  EXPECT_THAT(refused.err, HasSubstr("--seed"));
  EXPECT_FALSE(exists("a"));
  const auto rest = run({"-f", "prompts.txt", "-o", "clips", "--keep-going", "--log-json", "log.jsonl"});
  EXPECT_EQ(rest.exit_code, 1);
  EXPECT_THAT(rest.err, HasSubstr("3 clips: 2 made, 0 left as they were, 1 failed"));
  EXPECT_TRUE(exists("clips/0000_a-red-circle_0.mp4"));
  EXPECT_TRUE(exists("clips/0002_a-green-star_0.mp4"));
  const auto all = events("log.jsonl");
  EXPECT_EQ(std::count_if(all.begin(), all.end(),
                          [](const ConfigNode& event) { return event.at("event").as_string() == "error"; }),
            1);
}

TEST_F(CliJobs, names_what_is_wrong_with_a_prompt_file) {
  write("empty.txt", "# nothing\n\n");
  write("latin1.txt", "a caf\xE9\n");
  write("list.doc", "a\n");
  const std::vector<std::pair<std::string, std::string>> cases = {{"missing.txt", "missing.txt: no such file"},
                                                                  {"empty.txt", "empty.txt"},
                                                                  {"latin1.txt", "latin1.txt:1:6: byte 0xe9"},
                                                                  {"list.doc", ".jsonl"}};
  for (const auto& [file, message] : cases) {
    const auto result = run({"-f", file});
    EXPECT_EQ(result.exit_code, 2) << file;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
}

TEST_F(CliJobs, lists_the_clips_of_a_dry_run_and_loads_nothing) {
  write("prompts.jsonl", "{\"prompt\": \"a\", \"seed\": 3}\n{\"prompt\": \"b\", \"size\": \"70x48\"}\n");
  const auto dry = run({"-f", "prompts.jsonl", "--num-videos", "2", "-o", "{index}_{seed}.mp4", "--dry-run"});
  EXPECT_EQ(dry.exit_code, 0) << dry.err;
  for (const char* name : {"0_3.mp4", "1_4.mp4", "2_0.mp4", "3_1.mp4", "4 clips"})
    EXPECT_THAT(dry.out, HasSubstr(name));
  EXPECT_THAT(dry.out, HasSubstr("--width 70 is not a multiple of 16: using 64"));
  EXPECT_THAT(dry.err, Not(HasSubstr("denoise")));
  EXPECT_FALSE(exists("0_3.mp4"));
}

TEST_F(CliJobs, shares_a_list_between_shards) {
  write("prompts.csv", "prompt,seed\na,1\nb,2\n\"c, d\",3\ne,4\n");
  const std::string names[] = {"0_a", "1_b", "2_c-d", "3_e"};
  const auto list = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"-f", "prompts.csv", "-o", "{index}_{slug}.mp4", "--dry-run"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = run(arguments);
    std::string chosen;
    for (const std::string& name : names) chosen += result.out.find(name + ".mp4") != std::string::npos ? '1' : '0';
    return chosen;
  };
  EXPECT_EQ(list({"--shard", "0/2"}), "1010");
  EXPECT_EQ(list({"--shard", "1/2"}), "0101");
  EXPECT_EQ(list({"--start", "1", "--limit", "2"}), "0110");
  EXPECT_EQ(list({"--start", "1", "--shard", "1/2"}), "0010");
  EXPECT_EQ(run({"-f", "prompts.csv", "--shard", "2/2"}).exit_code, 2);
  EXPECT_EQ(run({"-f", "prompts.csv", "--start", "4"}).exit_code, 2);
}

TEST_F(CliJobs, refuses_two_clips_under_one_name) {
  const auto result = run({"-p", "a", "-p", "b", "-o", "same.mp4"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("clips 0 (--prompt) and 1 (--prompt) would both be same.mp4"));
  EXPECT_THAT(run({"-p", "a", "-o", "{indx}.mp4"}).err, HasSubstr("did you mean 'index'"));
}

TEST_F(CliJobs, leaves_a_clip_to_the_process_that_makes_it) {
  const auto lock = LockFile::try_lock(folder / ".a.mp4.lock");
  ASSERT_TRUE(lock);
  const auto second = run({"-p", "a", "-o", "a.mp4"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("another strobe is making it"));
  EXPECT_FALSE(exists("a.mp4"));
  const auto list = run({"-p", "a", "-p", "b", "-o", "{slug}.mp4", "--skip-existing"});
  EXPECT_EQ(list.exit_code, 0) << list.err;
  EXPECT_TRUE(exists("b.mp4"));
}

TEST_F(CliJobs, takes_a_run_file_below_sets_and_flags) {
  write("base.yaml", "schema: 1\nnum_frames: 9\nseed: 5\nsampling: {num_inference_steps: 3}\n");
  write("run.yaml", "schema: 1\nextends: base.yaml\nprompt: a cat\nnum_frames: 5\n");
  const auto made =
      strobe({"generate", "--config", "run.yaml", "--size", "64x48", "--set", "num_inference_steps=1", "-o", "c.mp4"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const ConfigNode config = weights::load_json(folder / "c.json").at("config");
  EXPECT_EQ(config.at("num_frames").at("origin").as_string(), "run.yaml:4:13");
  EXPECT_EQ(config.at("seed").at("origin").as_string(), "base.yaml:3:7");
  EXPECT_EQ(config.at("num_inference_steps").at("origin").as_string(), "--set num_inference_steps=1");
  const auto shown = strobe({"config", "show", "run.yaml", "--steps", "2"});
  EXPECT_EQ(shown.exit_code, 0);
  EXPECT_THAT(shown.out, HasSubstr("num_inference_steps: 2  # --num-inference-steps"));
  EXPECT_THAT(shown.out, HasSubstr("seed: 5  # base.yaml:3:7"));

  write("bad.yaml", "schema: 1\nprompt: a\nnum_frame: 5\n");
  const auto bad = strobe({"generate", "--config", "bad.yaml"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("bad.yaml:3:12: unknown key 'num_frame'; did you mean 'num_frames'?"));
  write("twice.yaml", "schema: 1\nseed: 1\nseed: 2\n");
  EXPECT_THAT(strobe({"generate", "-p", "a", "--config", "twice.yaml"}).err, HasSubstr("twice.yaml:3:"));
}

TEST_F(CliJobs, refuses_a_clip_that_cannot_fit_before_any_work) {
  const auto large = strobe({"generate", "-p", "a", "--num-frames", "99997", "--size", "4096x4096", "-o", "a.mp4"});
  EXPECT_EQ(large.exit_code, 3);
  EXPECT_THAT(large.err, HasSubstr("planned memory"));
  const auto bound = run({"-p", "a", "-o", "a.mp4", "--max-vram", "0.01"});
  EXPECT_EQ(bound.exit_code, 3);
  EXPECT_THAT(bound.err, HasSubstr("--max-vram allows"));
  EXPECT_EQ(strobe({"generate", "-p", "a", "--num-frames", "0", "-o", "a.mp4"}).exit_code, 2);
}

}  // namespace
}  // namespace strobe
