// Attention methods in whole runs: what is made, what the record says of it, going on, plans.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/attention_methods.h"
#include "tests/cli/fault.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kWindow = "window:window=1/1/1,block_size=8,dense_steps=0";
constexpr const char* kRadial = "radial:block_size=8,dense_layers=0,dense_steps=0";

struct AttentionRuns : test::CliAttention {
  // 5 x 2 x 4 patches, four steps, two layers of two heads.
  test::ProcessResult clip(const std::string& name, const std::vector<std::string>& rules,
                           const std::vector<std::string>& more = {}, const test::ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = {
        "generate", "-p", "a red circle", "--num-frames", "17",         "--size",         "64x32",
        "--steps",  "4",  "-o",           name + ".mkv",  "--lossless", "--save-latents", name + ".safetensors"};
    arguments.insert(arguments.end(), {"--threads", "1"});  // tiny tensors
    for (const std::string& rule : rules) arguments.insert(arguments.end(), {"--attention", rule});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments, options);
  }
  // The same clip.
  test::ProcessResult plan(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"plan", "--num-frames", "17", "--size", "64x32", "--steps", "4"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments);
  }
  at::Tensor latents(const std::string& name) const {
    return weights::open_safetensors(folder / (name + ".safetensors"))->read("latents");
  }
  ConfigNode record(const std::string& name) const { return weights::load_json(folder / (name + ".json")); }
};

// Rows of self attention by this method that kept less than all.
std::vector<ConfigNode> sparse_rows(const ConfigNode& ran, const std::string& method) {
  std::vector<ConfigNode> rows;
  for (const ConfigNode& row : ran.at("attention").as_list()) {
    if (row.at("kind").as_string() == "self" && row.at("method").as_string() == method &&
        row.at("density").as_number() < 1) {
      rows.push_back(row);
    }
  }
  return rows;
}

// "0-1/0-0 window" for steps/layers and method, in order.
std::vector<std::string> site_texts(const ConfigNode& ran) {
  std::vector<std::string> texts;
  for (const ConfigNode& run : ran.at("attention_by_step_and_layer").as_list()) {
    const auto range = [&](const char* key) {
      const ConfigNode::List& ends = run.at(key).as_list();
      return fmt::format("{}-{}", ends.at(0).as_integer(), ends.at(1).as_integer());
    };
    texts.push_back(fmt::format("{}/{} {}", range("steps"), range("layers"), run.at("method").as_string()));
  }
  return texts;
}

void expect_record(const ConfigNode& side_car, const std::string& method) {
  const ConfigNode& ran = side_car.at("ran");
  const auto rows = sparse_rows(ran, method);
  ASSERT_FALSE(rows.empty());
  EXPECT_FALSE(rows[0].at("kernel").as_string().empty());
  EXPECT_GT(rows[0].at("calls").as_integer(), 0);
  EXPECT_GT(rows[0].at("plans").as_integer() + rows[0].at("cache_hits").as_integer(), 0);
  double least = 1;
  for (const ConfigNode& run : ran.at("attention_by_step_and_layer").as_list()) {
    EXPECT_EQ(run.at("method").as_string(), method);
    EXPECT_FALSE(run.at("kernel").as_string().empty());
    least = std::min(least, run.at("density").as_number());
  }
  EXPECT_LT(least, 1);
  EXPECT_GT(least, 0);
  EXPECT_THAT(ran.at("fallbacks").as_list(), IsEmpty());
  EXPECT_THAT(side_car.at("request").at("attention").as_list().at(0).as_string(), HasSubstr(method + ":"));
}

TEST_F(AttentionRuns, of_every_method_tell_what_ran_and_go_on_bit_equal_after_a_kill_between_steps) {
  const test::TempFolder elsewhere;
  const std::vector<std::string> often = {"--checkpoint-every", "1"};
  for (const std::string& method : sparse_methods()) {
    SCOPED_TRACE(method);
    const std::vector<std::string> rules = {sparse_rule(method)};
    const auto made = clip(method, rules, often, test::with_event_count(folder.path(), elsewhere / method));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    EXPECT_THAT(made.err, HasSubstr(method + " density 0."));
    const ConfigNode side_car = record(method);
    expect_record(side_car, method);

    // The third checkpoint is published, then the process is gone.
    const at::Tensor whole = latents(method).clone();
    const auto events = test::read_events(elsewhere / method);
    std::vector<size_t> saved;
    for (size_t i = 0; i < events.size(); ++i) {
      if (events[i].starts_with("rename") && events[i].find("checkpoint") != std::string::npos) saved.push_back(i + 1);
    }
    ASSERT_EQ(saved.size(), 4U);
    for (const char* end : {".mkv", ".json", ".safetensors"}) fs::remove(folder / (method + end));
    const auto cut =
        clip(method, rules, often, test::with_fault(folder.path(), {.kind = "kill-after", .at = saved[2]}));
    ASSERT_EQ(cut.exit_code, 137) << cut.err;
    const auto resumed = clip(method, rules, {"--checkpoint-every", "1", "--resume"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_THAT(resumed.err, HasSubstr("going on after step 3"));
    EXPECT_TRUE(at::equal(latents(method), whole));
    EXPECT_EQ(record(method).at("frame_sha256").as_string(), side_car.at("frame_sha256").as_string());
    expect_record(record(method), method);
  }
}

TEST_F(AttentionRuns, plan_a_layout_of_the_grid_once) {
  for (const char* rule : {kWindow, kRadial}) {
    const std::string method(rule, std::strchr(rule, ':'));
    ASSERT_EQ(clip(method, {rule}).exit_code, 0);
    const ConfigNode side_car = record(method);
    // 4 steps, 2 branches, 2 layers.
    const ConfigNode& cache = side_car.at("ran").at("pattern_cache");
    EXPECT_EQ(cache.at("hits").as_integer(), 15);
    EXPECT_EQ(cache.at("misses").as_integer(), 1);
    EXPECT_EQ(sparse_rows(side_car.at("ran"), method).at(0).at("plans").as_integer(), 1);
  }
}

TEST_F(AttentionRuns, that_keep_everything_are_dense_bit_for_bit) {
  ASSERT_EQ(clip("dense", {"dense"}).exit_code, 0);
  for (const std::string& method : sparse_methods()) {
    const std::string rule = full_rule(method);
    if (rule.empty()) continue;
    SCOPED_TRACE(rule);
    const auto made = clip(method, {rule});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    if (reorders(method)) {
      EXPECT_TRUE(at::allclose(latents(method), latents("dense"), 1e-4, 1e-4));
    } else {
      EXPECT_TRUE(at::equal(latents(method), latents("dense")));
    }
  }
}

TEST_F(AttentionRuns, follow_the_last_rule_that_matches) {
  const std::string radial = kRadial;
  const auto made = clip("mixed", {kWindow, radial + ",layers=1,steps=1-2", "dense:steps=3"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(site_texts(record("mixed").at("ran")),
              ElementsAre("0-0/0-1 window", "1-2/0-0 window", "1-2/1-1 radial", "3-3/0-1 dense"));
  EXPECT_THAT(made.err, HasSubstr("radial+window density 0."));
  // Heads of one layer apart, what no rule matches dense.
  ASSERT_EQ(clip("heads", {radial + ",heads=1,layers=0"}).exit_code, 0);
  EXPECT_THAT(site_texts(record("heads").at("ran")), ElementsAre("0-3/0-0 dense+radial", "0-3/1-1 dense"));
}

TEST_F(AttentionRuns, take_a_list_of_rules_from_a_run_file) {
  folder.write("run.yaml",
               "schema: 1\nprompt: a red circle\nsize: [17, 32, 64]\nnum_inference_steps: 2\nattention:\n"
               "  - {method: window, window: [1, 1, 1], block_size: 8, dense_steps: 0}\n"
               "  - method: radial\n    layers: [1]\n    options: {block_size: 8, dense_layers: 0, dense_steps: 0}\n");
  const auto shown = strobe({"config", "show", "run.yaml"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, AllOf(HasSubstr("window:window=1/1/1,block_size=8,dense_steps=0"),
                               HasSubstr("radial:layers=1,block_size=8"), HasSubstr("# run.yaml:6:")));
  const auto made = strobe({"generate", "--config", "run.yaml", "-o", "a.mp4"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(site_texts(record("a").at("ran")), ElementsAre("0-1/0-0 window", "0-1/1-1 radial"));

  folder.write("bad.yaml", "schema: 1\nprompt: a\nattention:\n  - {method: windw}\n");
  const auto bad = strobe({"generate", "--config", "bad.yaml"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("did you mean 'window'?"));
}

TEST_F(AttentionRuns, are_made_again_by_replay) {
  // A method a layer and head, the later ones where there are more.
  std::vector<std::string> rules;
  for (const std::string& method : sparse_methods()) {
    const size_t place = rules.size() % 4;
    rules.push_back(fmt::format("{},layers={},heads={}", sparse_rule(method), place / 2, place % 2));
  }
  ASSERT_EQ(clip("a", rules).exit_code, 0);
  const auto again = strobe({"replay", "a.mkv"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("bit for bit"));
}

TEST_F(AttentionRuns, of_two_sizes_in_one_list_are_what_two_processes_make) {
  // Methods in turn in one list, a clip each of this size and of another.
  std::vector<std::string> methods;
  for (const char* method : {"window", "vmoba", "adaspa"}) {
    if (knows(method)) methods.emplace_back(method);
  }
  std::string list;
  for (const std::string& method : methods) {
    for (const char* size : {"--num-frames 17 --size 64x32", "--num-frames 5 --size 96x32"}) {
      list += fmt::format("{} {} --attention {}\n", method, size, sparse_rule(method));
    }
  }
  folder.write("list.txt", list);
  const std::vector<std::string> same = {"--steps", "4", "--threads", "1", "--lossless"};
  std::vector<std::string> all = {"generate", "-f", "list.txt", "-o", "{index}.mkv"};
  all.insert(all.end(), same.begin(), same.end());
  const auto made = strobe(all);
  ASSERT_EQ(made.exit_code, 0) << made.err;
  int index = 0;
  for (const std::string& method : methods) {
    SCOPED_TRACE(method);
    std::vector<std::string> one = {"generate",     "-p",    method,        "--num-frames",      "5",
                                    "--size",       "96x32", "--attention", sparse_rule(method), "-o",
                                    method + ".mkv"};
    one.insert(one.end(), same.begin(), same.end());
    const auto alone = strobe(one);
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    EXPECT_EQ(record(std::to_string(index + 1)).at("frame_sha256").as_string(),
              record(method).at("frame_sha256").as_string());
    index += 2;
  }
}

TEST_F(AttentionRuns, leave_their_layouts_and_outputs_in_a_folder) {
  const std::string radial = kRadial;
  const auto dumped = strobe({"generate", "-p", "a", "--num-frames", "17", "--size", "64x32", "--steps", "1", "-o",
                              "a.mp4", "--dump", "dump", "--attention", kWindow, "--attention",
                              radial + ",layers=1,heads=0", "--attention", radial + ",layers=1,heads=1"});
  ASSERT_EQ(dumped.exit_code, 0) << dumped.err;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder / "dump")) names.push_back(entry.path().filename().string());
  EXPECT_THAT(
      names, ::testing::UnorderedElementsAre("step0000_layer00_cond.safetensors", "step0000_layer00_uncond.safetensors",
                                             "step0000_layer01_cond_head00_radial.safetensors",
                                             "step0000_layer01_cond_head01_radial.safetensors",
                                             "step0000_layer01_uncond_head00_radial.safetensors",
                                             "step0000_layer01_uncond_head01_radial.safetensors"));
  const std::string file = "dump/step0000_layer00_cond.safetensors";
  const auto source = weights::open_safetensors(folder / file);
  EXPECT_EQ(source->read("level").sizes(), at::IntArrayRef({1, 5, 5}));
  EXPECT_EQ(source->read("out").sizes(), at::IntArrayRef({1, 2, 40, 64}));
  EXPECT_EQ(source->read("lse").sizes(), at::IntArrayRef({1, 2, 40}));
  EXPECT_EQ(source->read("query_offsets").sizes(), at::IntArrayRef({6}));
  EXPECT_EQ(source->metadata().at("method"), "window");

  const auto text = strobe({"pattern", "show", file});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(text.out, "##   \n###  \n ### \n  ###\n   ##\n");
  EXPECT_EQ(strobe({"pattern", "show", file, "-o", "layout.png"}).exit_code, 0);
  EXPECT_THAT(test::read_file(folder / "layout.png"), HasSubstr("PNG"));
  EXPECT_EQ(strobe({"pattern", "show", file, "-o", "layout.png"}).exit_code, 2);
  EXPECT_EQ(strobe({"pattern", "show", file, "--head", "1"}).exit_code, 2);
}

TEST_F(AttentionRuns, leave_a_block_of_a_dense_call) {
  ASSERT_EQ(generate({"--dump", "dump", "-o", "a.mp4"}).exit_code, 0);
  const auto text = strobe({"pattern", "show", "dump/step0001_layer01_uncond.safetensors"});
  EXPECT_EQ(text.out, "#\n") << text.err;
}

TEST_F(AttentionRuns, are_refused_with_the_nearest_name_or_the_reason) {
  struct Case {
    std::string rule, message;
  };
  const std::vector<Case> usage = {
      {"windw", "did you mean 'window'?"},
      {"window:windo=1/1/1", "did you mean 'window'?"},
      {"radial:preset=wan_14c", "did you mean 'wan_14b'?"},
      {"window:block_size=0", "window: block_size: expected an integer in [1, 65536], found '0'"},
      {"window:block_size=48,dense_steps=0", "a block of 48 is larger than the sequence of 40 tokens"},
      {"window:layers=1-2", "--attention window: layers=1-2: this run has the layers 0 to 1"},
      {"radial:heads=2", "--attention radial: heads=2: this run has the heads 0 to 1"},
      {"dense:steps=4", "--attention dense: steps=4: this run has the steps 0 to 3"},
      {"sparsed:block_size=8,groups=0/40", "sparsed: groups: token 40 is beyond the 40 tokens"},
      // One block of more than three frames: no frame fills a third of it, so the public mask keeps nothing.
      {"radial:mode=parity,block_size=40,dense_layers=0,dense_steps=0", "keeps no key block"}};
  for (const Case& c : usage) {
    const auto result = clip("x", {c.rule});
    EXPECT_EQ(result.exit_code, 2) << c.rule << result.err;
    EXPECT_THAT(result.err, HasSubstr(c.message));
    EXPECT_FALSE(fs::exists(folder / "x.mkv"));
    const auto planned = plan({"--attention", c.rule});
    EXPECT_EQ(planned.exit_code, 2) << c.rule << planned.err;
    EXPECT_THAT(planned.err, HasSubstr(c.message));
  }
  // Dense steps come first: the refusal does not wait for them.
  const auto late = clip("x", {"radial:mode=parity,block_size=40,dense_layers=0,dense_steps=3"});
  EXPECT_EQ(late.exit_code, 2);
  EXPECT_THAT(late.err, AllOf(HasSubstr("keeps no key block"), Not(HasSubstr("denoise"))));
  const auto forced = clip("x", {kWindow}, {"--attention-backend", "torch_dense"});
  EXPECT_EQ(forced.exit_code, 3);
  EXPECT_THAT(forced.err, AllOf(HasSubstr("no attention backend can do this: torch_dense: dense attention only"),
                                Not(HasSubstr("denoise"))));
  EXPECT_EQ(plan({"--attention", kWindow, "--attention-backend", "torch_dense"}).exit_code, 3);
  const auto masked = clip("x", {kWindow}, {"--attention-backend", "cpu"},
                           {.environment = {{"STROBE_MACHINE", "no-avx2,no-avx512,no-bf16"}}});
  EXPECT_EQ(masked.exit_code, 3);
  for (const char* kernel : {"block_attention_bf16_avx512: ", "block_attention_fp32_avx512: ", "fp32_avx2: "}) {
    EXPECT_THAT(masked.err, HasSubstr(kernel));
  }
  const auto unknown = clip("x", {kWindow}, {"--attention-backend", "torch_dens"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("did you mean 'torch_dense'?"));
}

TEST_F(AttentionRuns, refuse_to_remember_more_than_the_cache_may_hold) {
  for (const char* method : {"adaspa", "sparsed"}) {
    if (!knows(method)) continue;
    const auto result = clip(method, {sparse_rule(method)}, {"--pattern-cache-mib", "0"});
    EXPECT_EQ(result.exit_code, 3) << method;
    EXPECT_THAT(result.err, AllOf(HasSubstr("--pattern-cache-mib allows 0"), Not(HasSubstr("denoise"))));
    EXPECT_EQ(plan({"--attention", sparse_rule(method), "--pattern-cache-mib", "0"}).exit_code, 3) << method;
  }
  // A plan that is not kept is made anew.
  ASSERT_EQ(clip("window", {kWindow}, {"--pattern-cache-mib", "0"}).exit_code, 0);
  EXPECT_EQ(record("window").at("ran").at("pattern_cache").at("misses").as_integer(), 16);
}

TEST_F(AttentionRuns, warn_once_of_rules_that_do_less_than_they_say) {
  folder.write("list.txt", "one\ntwo --seed 7\n");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"sparsed:block_size=8", "sparsed: skip=0.2 of 4 steps is less than one step"},
      {"window:block_size=8,sigma_max=0.0001", "no step, layer and head of this run follows this rule"},
      {"adaspa", "a block of 64 is larger than the sequence of 40 tokens"}};
  for (const auto& [rule, message] : cases) {
    const auto planned = plan({"--attention", rule});
    EXPECT_EQ(planned.exit_code, 0) << planned.err;
    EXPECT_THAT(planned.err, HasSubstr(message));
    const auto made = strobe({"generate", "-f", "list.txt", "--num-frames", "17", "--size", "64x32", "--steps", "4",
                              "--attention", rule, "-o", "{index}.mp4", "--overwrite", "--threads", "1"});
    EXPECT_EQ(made.exit_code, 0) << made.err;
    const size_t first = made.err.find(message);
    ASSERT_NE(first, std::string::npos) << made.err;
    EXPECT_EQ(made.err.find(message, first + 1), std::string::npos) << made.err;
  }
  EXPECT_THAT(plan({"--attention", "sparsed:block_size=8,skip=0.5"}).err, IsEmpty());
  EXPECT_THAT(plan({"--attention", "sparsed:block_size=8,dense_steps=2"}).err, IsEmpty());
}

TEST_F(AttentionRuns, are_planned_with_what_they_remember) {
  const auto bytes = [&](const std::string& rule) {
    const auto json = plan({"--json", "-", "--attention", rule});
    EXPECT_EQ(json.exit_code, 0) << json.err;
    const ConfigNode planned = weights::parse_json(json.out, "plan");
    return planned.at("memory_estimate").at("denoise").at("pattern_state_bytes").as_integer();
  };
  // adaspa: 40 tokens x 2 heads of 4 bytes, 2 heads x 5 rows of a word, 12 offsets, a step; 2 layers, 2 branches.
  EXPECT_EQ(bytes("adaspa:block_size=8,search_steps=1/3"), 4 * (320 + 80 + 48 + 8));
  EXPECT_EQ(bytes("adaspa:block_size=8,search_steps=1/3,layers=1,share_branches=1"), 320 + 80 + 48 + 8);
  EXPECT_EQ(bytes(kWindow), 0);
  const auto text = plan({"--attention", "adaspa:block_size=8,search_steps=1/3"});
  EXPECT_THAT(text.out, HasSubstr("remembered"));
}

TEST_F(AttentionRuns, are_planned_without_weights) {
  const std::string radial = kRadial;
  const std::vector<std::string> command = {
      "plan",        "--num-frames",      "17", "--size", "64x32", "--steps", "4", "--attention", kWindow,
      "--attention", radial + ",layers=1"};
  const auto text = strobe(command);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"window+radial", "13 of 5 x 5 blocks a head", "at 50.0 % of steps, layers and heads",
                           "bound ", "on the denoising time"}) {
    EXPECT_THAT(text.out, HasSubstr(part));
  }
  std::vector<std::string> as_json = command;
  as_json.insert(as_json.end(), {"--json", "-"});
  const auto json = strobe(as_json);
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const ConfigNode plan = weights::parse_json(json.out, "plan");
  const ConfigNode& attention = plan.at("attention");
  const ConfigNode::List& rules = attention.at("rules").as_list();
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[0].at("method").as_string(), "window");
  EXPECT_DOUBLE_EQ(rules[0].at("density").as_number(), 0.52);
  EXPECT_DOUBLE_EQ(rules[0].at("share").as_number(), 0.5);
  const double mean = (rules[0].at("density").as_number() + rules[1].at("density").as_number()) / 2;
  EXPECT_DOUBLE_EQ(attention.at("density").as_number(), mean);
  EXPECT_GT(attention.at("speedup_bound").as_number(), 1);
  EXPECT_LT(attention.at("speedup_bound").as_number(), 1 / mean);

  // The clip delivers what the plan says.
  ASSERT_EQ(clip("a", {kWindow, radial + ",layers=1"}).exit_code, 0);
  EXPECT_DOUBLE_EQ(sparse_rows(record("a").at("ran"), "window").at(0).at("density").as_number(), 0.52);
}

}  // namespace
}  // namespace strobe
