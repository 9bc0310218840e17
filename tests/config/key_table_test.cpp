#include "config/key_table.h"

#include <gtest/gtest.h>

#include <string>

#include "config/yaml_loader.h"
#include "tests/support/temp_folder.h"

namespace strobe::config {
namespace {

const KeyTable& table() {
  static const KeyTable keys({
      {.name = "prompt", .sentence = "what it shows", .group = "Clip", .flags = "-p,--prompt", .is_list = true},
      {.name = "num_frames",
       .type = KeyType::kInteger,
       .group = "Clip",
       .flags = "--num-frames",
       .minimum = 1,
       .maximum = 1000},
      {.name = "height", .type = KeyType::kInteger, .group = "Clip", .flags = "--height", .minimum = 1},
      {.name = "width", .type = KeyType::kInteger, .group = "Clip", .flags = "--width", .minimum = 1},
      {.name = "size",
       .type = KeyType::kSize,
       .group = "Clip",
       .flags = "--size",
       .axes = {"num_frames", "height", "width"}},
      {.name = "seed",
       .type = KeyType::kInteger,
       .group = "Clip",
       .flags = "-s,--seed",
       .minimum = -1,
       .default_text = "0"},
      {.name = "steps", .type = KeyType::kInteger, .group = "Clip", .flags = "--steps,--num-steps"},
      {.name = "shift",
       .type = KeyType::kNumber,
       .group = "Clip",
       .flags = "--shift",
       .minimum = 0,
       .is_above_minimum = true},
      {.name = "strict", .type = KeyType::kBoolean, .group = "Clip", .flags = "--strict", .default_text = "false"},
      {.name = "dtype",
       .group = "Machine",
       .flags = "--dtype",
       .choices = {"auto", "fp32", "bf16"},
       .default_text = "auto"},
      {.name = "output", .type = KeyType::kPath, .group = "Output", .flags = "-o,--output"},
      {.name = "attention.window", .type = KeyType::kInteger, .group = "Attention"},
  });
  return keys;
}

ConfigNode checked(const std::string& text) { return table().checked(parse_yaml(text, "run.yaml")); }

std::string refusal(const std::string& text) {
  return test::message_of<ConfigError>([&] { checked(text); });
}

std::string set_refusal(const std::vector<std::string>& items) {
  return test::message_of<ConfigError>([&] { table().parse_sets(items); });
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define EXPECT_CONTAINS(text, part) EXPECT_TRUE(contains(text, part)) << (text)

TEST(KeyTable, names_the_place_and_the_nearest_key_of_an_unknown_one) {
  EXPECT_EQ(refusal("sead: 1\n"), "run.yaml:1:7: unknown key 'sead'; did you mean 'seed'?");
  EXPECT_CONTAINS(refusal("num_steps: 1\n"), "did you mean 'steps'?");
  EXPECT_CONTAINS(refusal("zzzzzzzzzz: 1\n"), "known: prompt, num_frames");
  EXPECT_CONTAINS(refusal("attention: {windo: 1}\n"),
                  "unknown key 'attention.windo'; did you mean 'attention.window'?");
  EXPECT_CONTAINS(refusal("clip: {seed: 1}\n"), "unknown key 'clip'");
  EXPECT_LT(refusal(std::string(900, 'x') + ": 1\n").size(), 600U);
}

TEST(KeyTable, reads_dotted_keys_from_nested_maps) {
  EXPECT_EQ(checked("attention: {window: 5}\n").at("attention.window").as_integer(), 5);
  EXPECT_EQ(checked("attention.window: 5\n").at("attention.window").as_integer(), 5);
  EXPECT_CONTAINS(refusal("attention: {window: 5}\nattention.window: 6\n"), "stands twice");
}

TEST(KeyTable, refuses_other_types) {
  EXPECT_EQ(refusal("seed: x\n"), "run.yaml:1:7: seed: expected an integer from -1, got the text 'x'");
  EXPECT_CONTAINS(refusal("seed: '1'\n"), "expected an integer");
  EXPECT_CONTAINS(refusal("seed: 1.5\n"), "expected an integer");
  EXPECT_CONTAINS(refusal("seed: true\n"), "expected an integer");
  EXPECT_CONTAINS(refusal("seed: [1]\n"), "expected an integer");
  EXPECT_CONTAINS(refusal("strict: 1\n"), "expected true or false");
  EXPECT_CONTAINS(refusal("strict: yes\n"), "expected true or false");
  EXPECT_CONTAINS(refusal("output: 3\n"), "expected a path");
  EXPECT_CONTAINS(refusal("shift: {a: 1}\n"), "expected a number");
  EXPECT_EQ(checked("shift: 3\n").at("shift").as_number(), 3);
}

TEST(KeyTable, refuses_values_out_of_range) {
  EXPECT_EQ(refusal("num_frames: 0\n"),
            "run.yaml:1:13: num_frames: expected an integer from 1 to 1000, got the integer 0");
  EXPECT_CONTAINS(refusal("num_frames: 1001\n"), "from 1 to 1000");
  EXPECT_EQ(refusal("num_frames: 1000\n"), "(no error)");
  EXPECT_CONTAINS(refusal("shift: 0\n"), "expected a number above 0");
  EXPECT_CONTAINS(refusal("shift: .inf\n"), "expected a number above 0");
  EXPECT_CONTAINS(refusal("shift: .nan\n"), "expected a number above 0");
}

TEST(KeyTable, names_the_nearest_choice) {
  EXPECT_CONTAINS(refusal("dtype: fp23\n"), "run.yaml:1:8: dtype: ");
  EXPECT_CONTAINS(refusal("dtype: fp23\n"), "fp32");
  EXPECT_EQ(refusal("dtype: bf16\n"), "(no error)");
}

TEST(KeyTable, takes_a_single_value_for_a_list_of_one) {
  const ConfigNode one = checked("prompt: a cat\n"), two = checked("prompt: [a cat, '2']\n");
  ASSERT_EQ(one.at("prompt").as_list().size(), 1U);
  EXPECT_EQ(one.at("prompt").as_list()[0].as_string(), "a cat");
  EXPECT_EQ(one.at("prompt").origin(), "run.yaml:1:9");
  ASSERT_EQ(two.at("prompt").as_list().size(), 2U);
  EXPECT_EQ(two.at("prompt").as_list()[1].as_string(), "2");
  EXPECT_CONTAINS(refusal("prompt: [a, 2]\n"), "run.yaml:1:13");
  EXPECT_CONTAINS(refusal("prompt: [a, null]\n"), "run.yaml:1:13");
  EXPECT_CONTAINS(refusal("prompt: [[a]]\n"), "expected text");
}

TEST(KeyTable, splits_a_size_into_its_axes) {
  const ConfigNode text = checked("size: 832x480\n"), list = checked("size: [81, 480, 832]\n");
  EXPECT_EQ(text.at("width").as_integer(), 832);
  EXPECT_EQ(text.at("height").as_integer(), 480);
  EXPECT_EQ(text.at("height").origin(), "run.yaml:1:7");
  EXPECT_EQ(text.find("num_frames"), nullptr);
  EXPECT_EQ(text.find("size"), nullptr);
  EXPECT_EQ(list.at("num_frames").as_integer(), 81);
  EXPECT_EQ(list.at("width").as_integer(), 832);
  for (const char* size :
       {"832", "832x", "x480", "832x480x3", "832 x 480", "axb", "[1, 2]", "[1, 2, x]", "0x480", "{}"}) {
    EXPECT_NE(refusal(std::string("size: ") + size + "\n"), "(no error)") << size;
  }
  EXPECT_CONTAINS(refusal("size: 832x480\nwidth: 3\n"), "size is given beside width; give one of them");
}

TEST(KeyTable, fills_defaults_in_its_own_order) {
  const ConfigNode map = table().with_defaults(checked("dtype: fp32\nseed: null\noutput: a.mp4\n"));
  std::string names;
  for (const auto& [name, value] : map.as_map()) names += name + " ";
  EXPECT_EQ(names, "seed strict dtype output ");
  EXPECT_EQ(map.at("seed").as_integer(), 0);
  EXPECT_EQ(map.at("seed").origin(), "default");
  EXPECT_EQ(map.at("dtype").origin(), "run.yaml:1:8");
}

TEST(KeyTable, reads_sets_by_the_type_of_their_key) {
  const ConfigNode map = table().parse_sets(
      {"seed=3", "output=12", "prompt=null and void", "num-frames=5", "shift=1e-6", "strict=true", "dtype='bf16'"});
  EXPECT_EQ(map.at("seed").as_integer(), 3);
  EXPECT_EQ(map.at("seed").origin(), "--set seed=3");
  EXPECT_EQ(map.at("output").as_string(), "12");
  EXPECT_EQ(map.at("prompt").as_list()[0].as_string(), "null and void");
  EXPECT_EQ(map.at("num_frames").as_integer(), 5);
  EXPECT_DOUBLE_EQ(map.at("shift").as_number(), 1e-6);
  EXPECT_EQ(map.at("dtype").as_string(), "bf16");
  EXPECT_EQ(table().parse_sets({"output=a=b: c #d"}).at("output").as_string(), "a=b: c #d");
  EXPECT_EQ(table().parse_sets({"prompt=[a, b]"}).at("prompt").as_list().size(), 2U);
  EXPECT_EQ(table().parse_sets({"size=[5, 16, 32]"}).at("width").as_integer(), 32);
  EXPECT_EQ(table().parse_sets({"size=32x16"}).at("width").as_integer(), 32);
  EXPECT_TRUE(table().parse_sets({"seed=null"}).at("seed").is_null());
  EXPECT_EQ(table().parse_sets({"output='null'"}).at("output").as_string(), "null");
}

TEST(KeyTable, takes_text_that_looks_like_a_huge_number_from_a_set) {
  EXPECT_EQ(table().parse_sets({"output=99999999999999999999"}).at("output").as_string(), "99999999999999999999");
}

TEST(KeyTable, refuses_bad_sets) {
  EXPECT_EQ(set_refusal({"seed"}), "--set seed: expected key=value");
  EXPECT_CONTAINS(set_refusal({"=3"}), "expected key=value");
  EXPECT_CONTAINS(set_refusal({"sead=3"}), "--set sead=3: unknown key 'sead'; did you mean 'seed'?");
  EXPECT_CONTAINS(set_refusal({"seed=1", "seed=2"}), "seed is set twice");
  EXPECT_CONTAINS(set_refusal({"seed=x"}), "--set seed=x: seed: expected an integer");
  EXPECT_CONTAINS(set_refusal({"output='x"}), "--set output='x");
  EXPECT_CONTAINS(set_refusal({"size=3x3", "width=2"}), "give one of them");
}

TEST(KeyTable, begins_a_message_about_a_flag_with_what_was_typed) {
  const auto message = [](const char* key, const char* text, const char* flag) {
    return test::message_of<ConfigError>([&] { table().parse_value(*table().find(key), text, flag); });
  };
  EXPECT_EQ(message("num_frames", "0", "--num-frames"), "--num-frames 0: expected an integer from 1 to 1000");
  EXPECT_EQ(message("seed", "null", "--seed"), "--seed null: expected an integer from -1");
  EXPECT_EQ(message("output", "null", "--output"), "(no error)");
  EXPECT_EQ(message("seed", "7", "--seed"), "(no error)");
}

TEST(KeyTable, finds_a_key_by_every_name_of_it) {
  for (const char* name : {"steps", "num-steps", "num_steps", "--steps", "--num-steps"}) {
    ASSERT_NE(table().find_alias(name), nullptr) << name;
    EXPECT_EQ(table().find_alias(name)->name, "steps");
  }
  EXPECT_EQ(table().find_alias("-s")->name, "seed");
  EXPECT_EQ(table().find_alias("-x"), nullptr);
  EXPECT_EQ(table().find_alias(""), nullptr);
  EXPECT_EQ(long_flag(*table().find("seed")), "--seed");
  EXPECT_EQ(long_flag(*table().find("attention.window")), "");
}

}  // namespace
}  // namespace strobe::config
