#include "config/yaml_loader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/support/temp_folder.h"

namespace strobe::config {
namespace {

std::string refusal(const std::string& text) {
  return test::message_of<ConfigError>([&] { parse_yaml(text, "run.yaml"); });
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define EXPECT_CONTAINS(text, part) EXPECT_TRUE(contains(text, part)) << (text)

TEST(YamlLoader, gives_every_node_its_place_and_its_path) {
  const ConfigNode root = parse_yaml("seed: 3\nattention:\n  options:\n    - window: 5\n", "run.yaml");
  EXPECT_EQ(root.at("seed").origin(), "run.yaml:1:7");
  EXPECT_EQ(root.at("seed").path(), "seed");
  const ConfigNode& window = root.at("attention").at("options").as_list()[0].at("window");
  EXPECT_EQ(window.origin(), "run.yaml:4:15");
  EXPECT_EQ(window.path(), "attention.options[0].window");
}

TEST(YamlLoader, puts_an_absent_value_at_its_key) {
  const ConfigNode root = parse_yaml("a: 1\nb:\nc: 2\n", "run.yaml");
  EXPECT_TRUE(root.at("b").is_null());
  EXPECT_EQ(root.at("b").origin(), "run.yaml:2:1");
}

TEST(YamlLoader, types_plain_scalars_by_the_core_schema) {
  const auto value = [](const std::string& text) { return parse_plain_scalar(text, "here"); };
  for (const char* text : {"", "~", "null", "Null", "NULL"}) EXPECT_TRUE(value(text).is_null()) << text;
  for (const char* text : {"true", "True", "TRUE"}) EXPECT_TRUE(value(text).as_bool()) << text;
  for (const char* text : {"false", "False", "FALSE"}) EXPECT_FALSE(value(text).as_bool()) << text;
  EXPECT_EQ(value("12").as_integer(), 12);
  EXPECT_EQ(value("+12").as_integer(), 12);
  EXPECT_EQ(value("-012").as_integer(), -12);
  EXPECT_EQ(value("0x1F").as_integer(), 31);
  EXPECT_EQ(value("0o17").as_integer(), 15);
  EXPECT_EQ(value("-9223372036854775808").as_integer(), INT64_MIN);
  for (const char* text : {"1e-6", "1E-6", "+1.0e-6", "0.000001", ".000001"}) {
    EXPECT_FALSE(value(text).is_integer()) << text;
    EXPECT_DOUBLE_EQ(value(text).as_number(), 1e-6) << text;
  }
  EXPECT_DOUBLE_EQ(value("-.5").as_number(), -0.5);
  EXPECT_DOUBLE_EQ(value("5.").as_number(), 5);
  EXPECT_EQ(value(".inf").as_number(), HUGE_VAL);
  EXPECT_EQ(value("-.INF").as_number(), -HUGE_VAL);
  EXPECT_TRUE(std::isnan(value(".NaN").as_number()));
}

TEST(YamlLoader, takes_other_plain_scalars_for_text) {
  for (const char* text :
       {"yes", "no", "on", "off",   "nan",   "inf", "1_000", "0b11", "-0x1f", "1e",  "e5",   ".",
        "-",   "+",  "+.", "1.2.3", "12:30", "--1", "+-1",   "1e+",  "0x",    "0xg", "tRUE", "1 2"}) {
    const ConfigNode node = parse_plain_scalar(text, "here");
    ASSERT_TRUE(node.is_string()) << text;
    EXPECT_EQ(node.as_string(), text);
  }
}

TEST(YamlLoader, refuses_numbers_that_no_type_holds) {
  EXPECT_CONTAINS(refusal("seed: 9223372036854775808\n"), "run.yaml:1:7: the integer 9223372036854775808");
  EXPECT_CONTAINS(refusal("seed: 0xFFFFFFFFFFFFFFFFF\n"), "does not fit 64 bits");
  EXPECT_CONTAINS(refusal("scale: 1e999\n"), "run.yaml:1:8: the number 1e999 does not fit a double");
}

TEST(YamlLoader, keeps_quoted_scalars_text) {
  const ConfigNode root = parse_yaml("a: '12'\nb: \"true\"\nc: ''\nd: \"null\"\ne: |\n  1\n", "run.yaml");
  EXPECT_EQ(root.at("a").as_string(), "12");
  EXPECT_EQ(root.at("b").as_string(), "true");
  EXPECT_EQ(root.at("c").as_string(), "");
  EXPECT_EQ(root.at("d").as_string(), "null");
  EXPECT_EQ(root.at("e").as_string(), "1\n");
}

TEST(YamlLoader, keeps_keys_as_written) {
  const ConfigNode root = parse_yaml("1: a\ntrue: b\n'x y': c\n'~': d\n", "run.yaml");
  EXPECT_EQ(root.at("1").as_string(), "a");
  EXPECT_EQ(root.at("true").as_string(), "b");
  EXPECT_EQ(root.at("x y").as_string(), "c");
  EXPECT_EQ(root.at("~").as_string(), "d");
  EXPECT_CONTAINS(refusal("null: d\n"), "run.yaml:1:1: a key is missing, or null without quotes");
}

TEST(YamlLoader, reads_an_empty_document_as_null) {
  for (const char* text : {"", "\n", "# nothing\n", "---\n", "\xEF\xBB\xBF"}) {
    EXPECT_TRUE(parse_yaml(text, "run.yaml").is_null()) << text;
  }
}

TEST(YamlLoader, refuses_a_key_that_stands_twice) {
  EXPECT_CONTAINS(refusal("a:\n  seed: 1\n  x: 2\n  seed: 3\n"),
                  "run.yaml:4:3: a.seed: the key stands twice in one map, first in line 2");
  EXPECT_CONTAINS(refusal("{a: 1, 'a': 2}\n"), "stands twice");
  EXPECT_EQ(refusal("a: {x: 1}\nb: {x: 2}\n"), "(no error)");
}

TEST(YamlLoader, refuses_anchors_aliases_merge_keys_and_tags) {
  EXPECT_CONTAINS(refusal("a: &x 1\n"), "anchors");
  EXPECT_CONTAINS(refusal("a: &x {b: 1}\nc: *x\n"), "run.yaml:1:4: anchors");
  EXPECT_CONTAINS(refusal("a: &x\nb: 1\n"), "anchors");
  EXPECT_CONTAINS(refusal("- &x\n- 1\n"), "anchors");
  EXPECT_CONTAINS(refusal("&x a: 1\n"), "anchors");
  EXPECT_NE(refusal("a: *x\n"), "(no error)");
  EXPECT_CONTAINS(refusal("<<: {a: 1}\n"), "run.yaml:1:1: merge keys");
  EXPECT_EQ(refusal("'<<': {a: 1}\n"), "(no error)");
  EXPECT_CONTAINS(refusal("a: !!str 1\n"), "run.yaml:1:4: tags");
  EXPECT_CONTAINS(refusal("a: ! 1\n"), "tags");
  EXPECT_CONTAINS(refusal("a: !x [1]\n"), "tags");
  EXPECT_CONTAINS(refusal("!!map {a: 1}\n"), "tags");
  EXPECT_CONTAINS(refusal("! a: 1\n"), "tags");
  EXPECT_CONTAINS(refusal("a: !!null\nb: 1\n"), "tags");
  EXPECT_EQ(refusal("a: 'x & y *z !w'\nb: x &y !z\n"), "(no error)");
}

TEST(YamlLoader, refuses_a_second_document) {
  EXPECT_CONTAINS(refusal("a: 1\n---\nb: 2\n"), "a second document; a file holds one");
  EXPECT_NE(refusal("a: 1\n...\nb: 2\n"), "(no error)");
  EXPECT_NE(refusal("---\n---\n"), "(no error)");
}

TEST(YamlLoader, refuses_lists_and_maps_as_keys) {
  EXPECT_CONTAINS(refusal("? [1, 2]\n: 3\n"), "a list or a map as a key");
  EXPECT_CONTAINS(refusal("{{a: 1}: 3}\n"), "a list or a map as a key");
}

TEST(YamlLoader, names_the_place_of_malformed_text) {
  for (const char* text : {"a: [1, 2\n", "a: 'x\n", "a: 1\n b: 2\n", "a: }\n", "\ta: 1\n", "a: b: c\n", "- 1\nb: 2\n",
                           "a: \"\\q\"\n", "%YAML 9.9\n%YAML 1.1\n---\na: 1\n", "@a: 1\n", "a: `x\n"}) {
    const std::string message = refusal(text);
    EXPECT_TRUE(message.starts_with("run.yaml:")) << text << " -> " << message;
  }
}

TEST(YamlLoader, refuses_a_quote_that_is_not_closed) {
  for (const char* text :
       {"a: 'x", "a: 'x\n", "a: \"x", "a: \"x\n", "a: 'x\n\n", "a: 'x\r\n", "a: [1, 'x\n", "'a\n", "a: \"x\\\"\n",
        "a: 'it''\n", "a: \"x\\\n", "gr\xC3\xBC: 'x\nb: 2\n", "# \xC3\xBC\r\na: 'x\n"}) {
    EXPECT_NE(refusal(text), "(no error)") << text;
  }
  EXPECT_EQ(refusal("a: 1\nb: 'x\n  y\n"), "run.yaml:2:4: the quote is not closed");
  const ConfigNode root =
      parse_yaml("\xC3\xBC: x\r\na: 'it''s'\nb: \"\\\\\"\nc: ''''\nd: \"\\\"\"\ne: 'x\n  y'\n", "run.yaml");
  EXPECT_EQ(root.at("a").as_string(), "it's");
  EXPECT_EQ(root.at("b").as_string(), "\\");
  EXPECT_EQ(root.at("c").as_string(), "'");
  EXPECT_EQ(root.at("d").as_string(), "\"");
  EXPECT_EQ(root.at("e").as_string(), "x y");
}

TEST(YamlLoader, refuses_what_is_not_utf8) {
  EXPECT_CONTAINS(refusal("a: 1\nb: \xFFx\n"), "run.yaml:2:4: byte 0xff is not UTF-8");
  EXPECT_CONTAINS(refusal("a: \xC3\n"), "byte 0xc3");
  EXPECT_CONTAINS(refusal("a: \xC0\xAF\n"), "byte 0xc0");
  EXPECT_CONTAINS(refusal("a: \xED\xA0\x80\n"), "byte 0xed");
  EXPECT_CONTAINS(refusal("\xFF\xFE"
                          "a"),
                  "UTF-16");
  EXPECT_EQ(parse_yaml("a: gr\xC3\xBC\xC3\x9F\xF0\x9F\x98\x80\n", "run.yaml").at("a").as_string(),
            "gr\xC3\xBC\xC3\x9F\xF0\x9F\x98\x80");
}

TEST(YamlLoader, lets_no_control_byte_cut_a_document_short) {
  for (int byte = 0; byte < 0x80; ++byte) {
    const char c = static_cast<char>(byte);
    if ((byte >= 0x20 && byte < 0x7F) || c == '\t' || c == '\n' || c == '\r') continue;
    for (const std::string& before :
         {std::string("a: 1\n"), std::string("a: x"), std::string("a: \"x"), std::string()}) {
      const std::string message = refusal(before + c + "\nb: 2\n");
      EXPECT_CONTAINS(message, fmt::format("control character 0x{:02x}", byte));
      EXPECT_TRUE(message.starts_with("run.yaml:")) << message;
    }
  }
}

TEST(YamlLoader, refuses_escapes_that_give_no_utf8) {
  EXPECT_CONTAINS(refusal("prompt: \"\\N\"\n"), "an escape that gives no UTF-8");
  EXPECT_CONTAINS(refusal("prompt: \"\\_\"\n"), "an escape that gives no UTF-8");
}

TEST(YamlLoader, refuses_a_zero_byte_written_as_an_escape) {
  EXPECT_CONTAINS(refusal("a: \"x\\0y\"\n"), "a zero byte in a string");
  EXPECT_EQ(refusal("a: \"x\\x04y\"\nb: 1\n"), "(no error)");
  EXPECT_EQ(parse_yaml("a: \"x\\x04y\"\nb: 1\n", "run.yaml").at("b").as_integer(), 1);
}

TEST(YamlLoader, limits_the_depth) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(64)), "(no error)");
  EXPECT_CONTAINS(refusal(nested(65)), "nested deeper than 64 levels");
  EXPECT_NE(refusal(std::string(100000, '[')), "(no error)");
  EXPECT_NE(refusal(std::string(100000, '{')), "(no error)");
}

TEST(YamlLoader, names_the_file_that_cannot_be_read) {
  const test::TempFolder folder;
  const auto message = [](const std::filesystem::path& path) {
    return test::message_of<ConfigError>([&] { load_yaml(path); });
  };
  EXPECT_EQ(message(folder / "none.yaml"), (folder / "none.yaml").string() + ": no such file");
  EXPECT_CONTAINS(message(folder.path()), "is a folder, expected a file");
  EXPECT_CONTAINS(message(folder.write("big.yaml", std::string((size_t{1} << 20) + 1, ' '))),
                  "more than 1048576 bytes");
  EXPECT_EQ(load_yaml(folder.write("good.yaml", "a: 1\n")).at("a").origin(), (folder / "good.yaml").string() + ":1:4");
}

TEST(YamlLoader, writes_what_it_reads_back) {
  ConfigNode::List list = {ConfigNode::null(),        ConfigNode::boolean(true), ConfigNode::integer(-3),
                           ConfigNode::number(1e-6),  ConfigNode::number(2),     ConfigNode::number(HUGE_VAL),
                           ConfigNode::number(1e300), ConfigNode::list(),        ConfigNode::map()};
  for (const char* text : {"",
                           "plain",
                           "12",
                           "true",
                           "null",
                           "~",
                           "a: b",
                           "#x",
                           "x #y",
                           "- a",
                           "'",
                           "\"",
                           "\\",
                           "a\nb\r\tc",
                           "\x04",
                           "\x7F",
                           " x ",
                           "1e5",
                           "-",
                           "!x",
                           "&x",
                           "*x",
                           "<<",
                           "---",
                           "...",
                           "{",
                           "[",
                           "a,b",
                           "gr\xC3\xBC",
                           "\xC2\x85",
                           "\xE2\x80\xA8",
                           "\xEF\xBB\xBF",
                           "0x1f",
                           "?",
                           "@",
                           "%",
                           "`",
                           "99999999999999999999",
                           "0x99999999999999999999",
                           "0o7777777777777777777777777",
                           "1e999"}) {
    list.push_back(ConfigNode::string(text));
  }
  for (const ConfigNode& item : list) {
    ConfigNode map = ConfigNode::map();
    map.set("key: 1", item);
    const std::string text = to_yaml(map);
    const ConfigNode back = parse_yaml(text, "back");
    EXPECT_EQ(to_yaml(back), text);
    const ConfigNode& value = back.at("key: 1");
    EXPECT_EQ(value.describe(), item.describe()) << text;
    if (item.is_string()) {
      EXPECT_EQ(value.as_string(), item.as_string()) << text;
    }
  }
}

TEST(YamlLoader, reads_back_keys_of_any_length) {
  for (const size_t size : {900, 998, 999, 1022, 1023, 1024, 5000}) {
    for (const char* letter : {"k", "\"", "\xC3\xBC"}) {
      std::string key;
      while (key.size() < size) key += letter;
      ConfigNode map = ConfigNode::map();
      map.set(key, ConfigNode::list({ConfigNode::integer(1)}));
      map.set("b", map);
      const std::string text = to_yaml(map);
      EXPECT_EQ(to_yaml(parse_yaml(text, "back")), text) << size;
      EXPECT_EQ(parse_yaml(text, "back").at("b").at(key).as_list().size(), 1U) << size;
    }
  }
}

}  // namespace
}  // namespace strobe::config
