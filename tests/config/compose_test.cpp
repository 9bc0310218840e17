#include "config/compose.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "config/explain.h"
#include "config/yaml_loader.h"
#include "tests/support/temp_folder.h"

namespace strobe::config {
namespace {

const KeyTable& table() {
  static const KeyTable keys({
      {.name = "seed",
       .type = KeyType::kInteger,
       .sentence = "of the noise",
       .group = "Clip",
       .flags = "-s,--seed",
       .minimum = -1,
       .default_text = "0"},
      {.name = "steps",
       .type = KeyType::kInteger,
       .sentence = "denoising steps",
       .group = "Sampling",
       .flags = "--steps",
       .unit = "steps",
       .minimum = 1,
       .maximum = 1000,
       .default_text = "50",
       .parts = {"model", "sampling"}},
      {.name = "shift",
       .type = KeyType::kNumber,
       .sentence = "of the schedule",
       .group = "Sampling",
       .minimum = 0,
       .is_above_minimum = true,
       .default_note = "the model's",
       .parts = {"model", "sampling"}},
      {.name = "attention",
       .sentence = "method",
       .group = "Attention",
       .default_text = "dense",
       .parts = {"attention"}},
      {.name = "model", .type = KeyType::kPath, .sentence = "folder", .group = "Model", .parts = {"model"}},
      {.name = "prompt", .sentence = "what it shows", .group = "Clip", .is_list = true},
  });
  return keys;
}

class Compose : public testing::Test {
 protected:
  Compose() {
    for (const char* name : {"configs/models", "configs/attention", "configs/sampling", "configs/runs"}) {
      std::filesystem::create_directories(folder_ / name);
    }
  }
  std::string write(const std::string& name, const std::string& text) {
    return folder_.write("configs/" + name, text).string();
  }
  ConfigNode run(const std::string& text, const Sources& more = {}) {
    Sources sources = more;
    sources.file = write("runs/run.yaml", text);
    return compose(table(), sources);
  }
  std::string refusal(const std::string& text, const Sources& more = {}) {
    return test::message_of<ConfigError>([&] { run(text, more); });
  }
  std::string place(const std::string& end) { return (folder_ / ("configs/runs/run.yaml" + end)).string(); }
  static bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  test::TempFolder folder_;
};

#define EXPECT_CONTAINS(text, part) EXPECT_TRUE(contains(text, part)) << (text)

TEST_F(Compose, fills_defaults_without_a_file) {
  const ConfigNode map = compose(table(), {});
  EXPECT_EQ(map.at("steps").as_integer(), 50);
  EXPECT_EQ(map.at("steps").origin(), "default");
  EXPECT_EQ(map.find("shift"), nullptr);
}

TEST_F(Compose, refuses_a_file_without_its_schema) {
  EXPECT_EQ(refusal("seed: 1\n"), place(":1:1: `schema: 1` is missing on top"));
  EXPECT_CONTAINS(refusal("schema: 2\n"), place(":1:9: schema: expected 1"));
  EXPECT_CONTAINS(refusal("schema: '1'\n"), place(":1:9: schema: expected 1"));
  EXPECT_CONTAINS(refusal("[1]\n"), "expected a map");
  EXPECT_CONTAINS(refusal(""), "expected a map");
}

TEST_F(Compose, names_the_place_of_an_unknown_key) {
  EXPECT_EQ(refusal("schema: 1\nsead: 1\n"), place(":2:7: unknown key 'sead'; did you mean 'seed'?"));
}

TEST_F(Compose, takes_parts_by_name) {
  write("models/tiny.yaml", "schema: 1\nmodel: some/folder\nsteps: 4\n");
  write("sampling/fast.yaml", "schema: 1\nsteps: 8\n");
  write("attention/sparse.yaml", "schema: 1\n");
  const ConfigNode map = run("schema: 1\nsampling: fast\nmodel: tiny\nattention: sparse\n");
  EXPECT_EQ(map.at("steps").as_integer(), 8);
  EXPECT_CONTAINS(map.at("steps").origin(), "sampling/fast.yaml:2:8");
  EXPECT_EQ(map.at("model").as_string(), "some/folder");
  EXPECT_EQ(map.at("attention").as_string(), "sparse");
}

TEST_F(Compose, takes_parts_inline_and_values_as_themselves) {
  const ConfigNode map = run("schema: 1\nsampling: {steps: 9}\nmodel: /some/where\nattention: radial\n");
  EXPECT_EQ(map.at("steps").as_integer(), 9);
  EXPECT_EQ(map.at("steps").origin(), place(":2:19"));
  EXPECT_EQ(map.at("model").as_string(), "/some/where");
  EXPECT_EQ(map.at("attention").as_string(), "radial");
}

TEST_F(Compose, refuses_parts_that_are_none) {
  write("sampling/fast.yaml", "schema: 1\nsteps: 8\n");
  EXPECT_CONTAINS(refusal("schema: 1\nsampling: fats\n"), place(":2:11: sampling: "));
  EXPECT_CONTAINS(refusal("schema: 1\nsampling: fats\n"), "fast");
  EXPECT_CONTAINS(refusal("schema: 1\nsampling: 3\n"), "expected the name of a part or a map");
  EXPECT_NE(refusal("schema: 1\nsampling: ../sampling/fast\n"), "(no error)");
  EXPECT_CONTAINS(refusal("schema: 1\nsampling: {seed: 3}\n"), "not a key of a sampling part");
  EXPECT_CONTAINS(refusal("schema: 1\nsampling: {stepz: 3}\n"), "did you mean 'steps'?");
}

TEST_F(Compose, lets_a_file_extend_another) {
  write("runs/base.yaml", "schema: 1\nseed: 5\nsteps: 7\n");
  const ConfigNode map = run("schema: 1\nextends: base.yaml\nseed: 6\n");
  EXPECT_EQ(map.at("seed").origin(), place(":3:7"));
  EXPECT_EQ(map.at("steps").as_integer(), 7);
  EXPECT_CONTAINS(map.at("steps").origin(), "base.yaml:3:8");
}

TEST_F(Compose, puts_a_null_back_to_the_default) {
  write("runs/base.yaml", "schema: 1\nsteps: 7\n");
  EXPECT_EQ(run("schema: 1\nextends: base.yaml\nsteps: null\n").at("steps").origin(), "default");
  EXPECT_EQ(run("schema: 1\nsteps: 3\n", {.sets = {"steps=null"}}).at("steps").origin(), "default");
}

TEST_F(Compose, lets_an_extending_file_replace_a_part) {
  write("sampling/fast.yaml", "schema: 1\nsteps: 8\nshift: 3\n");
  write("runs/base.yaml", "schema: 1\nsampling: fast\n");
  EXPECT_EQ(run("schema: 1\nextends: base.yaml\n").at("steps").as_integer(), 8);
  const ConfigNode map = run("schema: 1\nextends: base.yaml\nsampling: {steps: 2}\n");
  EXPECT_EQ(map.at("steps").as_integer(), 2);
  EXPECT_EQ(map.find("shift"), nullptr);
  EXPECT_EQ(run("schema: 1\nextends: base.yaml\nsampling: null\n").at("steps").origin(), "default");
}

TEST_F(Compose, refuses_a_cycle) {
  EXPECT_CONTAINS(refusal("schema: 1\nextends: run.yaml\n"), "extends itself");
  write("runs/a.yaml", "schema: 1\nextends: ../runs/run.yaml\n");
  EXPECT_CONTAINS(refusal("schema: 1\nextends: a.yaml\n"), "extends itself");
  EXPECT_CONTAINS(refusal("schema: 1\nextends: none.yaml\n"), "no such file");
  EXPECT_CONTAINS(refusal("schema: 1\nextends: ''\n"), "expected a file");
  EXPECT_CONTAINS(refusal("schema: 1\nextends: [a.yaml]\n"), place(":2:10: extends"));
}

TEST_F(Compose, orders_default_part_file_set_and_flag) {
  write("sampling/fast.yaml", "schema: 1\nsteps: 8\n");
  Sources sources;
  EXPECT_CONTAINS(run("schema: 1\nsampling: fast\n").at("steps").origin(), "fast.yaml:2:8");
  EXPECT_EQ(run("schema: 1\nsteps: 9\nsampling: fast\n").at("steps").origin(), place(":2:8"));
  sources.sets = {"steps=10"};
  EXPECT_EQ(run("schema: 1\nsteps: 9\n", sources).at("steps").origin(), "--set steps=10");
  sources.sets.clear();
  sources.flags.set("steps", table().parse_value(*table().find("steps"), "11", "--steps"));
  EXPECT_EQ(run("schema: 1\nsteps: 9\n", sources).at("steps").origin(), "--steps");
  sources.sets = {"steps=10"};
  EXPECT_EQ(refusal("schema: 1\n", sources), "--set steps=10: steps is also given by --steps; give one of them");
}

TEST_F(Compose, shows_a_file_that_loads_again) {
  const ConfigNode map = run("schema: 1\nseed: 3\nprompt: ['a: b', \"x\\ny\"]\n");
  const std::string text = show(table(), map);
  EXPECT_CONTAINS(text, "seed: 3  # " + place(":2:7") + "\n");
  EXPECT_CONTAINS(text, "# shift: the model's\n");
  const ConfigNode again = run(text);
  EXPECT_EQ(to_yaml(again), to_yaml(map));
}

TEST_F(Compose, explains_keys) {
  EXPECT_EQ(explain_key(table(), "--steps"),
            "steps: denoising steps\n    an integer from 1 to 1000 (steps); default: 50; flag --steps\n");
  EXPECT_CONTAINS(explain_key(table(), "shift"), "a number above 0; default: the model's\n");
  EXPECT_CONTAINS(test::message_of<ConfigError>([] { explain_key(table(), "stepz"); }), "did you mean 'steps'?");
  const std::string all = explain_all(table());
  for (const std::string& name : table().names()) EXPECT_CONTAINS(all, name + ": ");
  EXPECT_CONTAINS(all, "# Sampling\n");
}

TEST_F(Compose, writes_a_json_schema) {
  const ConfigNode schema = json_schema(table(), "a run");
  EXPECT_EQ(schema.at("$schema").as_string(), "https://json-schema.org/draft/2020-12/schema");
  EXPECT_FALSE(schema.at("additionalProperties").as_bool());
  EXPECT_EQ(schema.at("required").as_list()[0].as_string(), "schema");
  const ConfigNode& properties = schema.at("properties");
  for (const std::string& name : table().names()) EXPECT_NE(properties.find(name), nullptr) << name;
  EXPECT_NE(properties.find("sampling"), nullptr);
  EXPECT_EQ(properties.at("schema").at("const").as_integer(), 1);
  const ConfigNode& steps = properties.at("steps");
  EXPECT_EQ(steps.at("default").as_integer(), 50);
  EXPECT_EQ(steps.at("description").as_string(), "denoising steps (steps)");
  const ConfigNode& one = steps.at("anyOf").as_list()[0];
  EXPECT_EQ(one.at("type").as_string(), "integer");
  EXPECT_EQ(one.at("minimum").as_integer(), 1);
  EXPECT_EQ(one.at("maximum").as_integer(), 1000);
  const ConfigNode& shift = properties.at("shift").at("anyOf").as_list()[0];
  EXPECT_EQ(shift.at("exclusiveMinimum").as_number(), 0);
  EXPECT_EQ(properties.at("prompt").at("anyOf").as_list()[1].at("type").as_string(), "array");
}

}  // namespace
}  // namespace strobe::config
