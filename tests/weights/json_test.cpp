#include "weights/json.h"

#include <gmock/gmock.h>

#include <limits>

#include "core/text_file.h"
#include "core/torch.h"
#include "tests/support/temp_folder.h"

namespace strobe::weights {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string refusal(std::string_view text) {
  return test::message_of<ConfigError>([&] { parse_json(text, "a.json"); });
}

TEST(Json, reads_every_kind_of_value_and_keeps_the_order_of_keys) {
  ConfigNode node = parse_json(R"({"z": 3, "a": [1.5, true, null, "x"], "m": {}})", "a.json");
  ASSERT_EQ(node.as_map().size(), 3U);
  EXPECT_EQ(node.as_map()[0].first, "z");
  EXPECT_EQ(node.at("z").as_integer(), 3);
  const ConfigNode::List& list = node.at("a").as_list();
  EXPECT_EQ(list[0].as_number(), 1.5);
  EXPECT_TRUE(list[1].as_bool());
  EXPECT_TRUE(list[2].is_null());
  EXPECT_EQ(list[3].as_string(), "x");
  EXPECT_TRUE(node.at("m").is_map());
}

TEST(Json, nodes_know_their_file_and_key_path) {
  ConfigNode node = parse_json(R"({"a": {"b": [0, [1, 2], {"c": 3}]}})", "a.json");
  const ConfigNode& list = node.at("a").at("b");
  EXPECT_EQ(node.path(), "");
  EXPECT_EQ(list.path(), "a.b");
  EXPECT_EQ(list.as_list()[1].as_list()[0].path(), "a.b[1][0]");
  EXPECT_EQ(list.as_list()[2].at("c").path(), "a.b[2].c");
  EXPECT_EQ(list.as_list()[2].at("c").origin(), "a.json");
  EXPECT_EQ(test::message_of<ConfigError>([&] { list.as_list()[2].at("c").as_string(); }),
            "a.json: a.b[2].c: expected a string, got the integer 3");
}

TEST(Json, syntax_errors_name_line_and_column) {
  EXPECT_THAT(refusal("{\n  \"a\": ?\n}"), StartsWith("a.json:2:8: "));
  EXPECT_THAT(refusal("x"), StartsWith("a.json:1:1: "));
  EXPECT_THAT(refusal("[1,\n2"), StartsWith("a.json:2:2: "));
  EXPECT_THAT(refusal(""), StartsWith("a.json:1:1: "));
  EXPECT_THAT(refusal("[1] 2"), StartsWith("a.json:1:5: "));
  EXPECT_THAT(refusal("[\n\"\\ud800\"]"), StartsWith("a.json:2:8: "));
}

TEST(Json, refuses_what_follows_a_zero_byte) {
  EXPECT_EQ(refusal(std::string_view("{}\n\0x", 5)), "a.json:2:1: a zero byte");
}

TEST(Json, refuses_duplicate_keys_with_their_path) {
  EXPECT_EQ(refusal(R"({"a": [{"b": 1, "b": 1}]})"), "a.json: a[0].b: the key stands twice in one map");
}

TEST(Json, refuses_nesting_deeper_than_64) {
  EXPECT_EQ(refusal(std::string(64, '[') + std::string(64, ']')), "(no error)");
  EXPECT_THAT(refusal(std::string(65, '[') + std::string(65, ']')), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(refusal(std::string(1000000, '[')), HasSubstr("nested deeper than 64 levels"));
}

TEST(Json, integers_beyond_64_bits_become_numbers) {
  ConfigNode node = parse_json("[9223372036854775807, 9223372036854775808, 1000000000000000019884624838656]", "a.json");
  EXPECT_EQ(node.as_list()[0].as_integer(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(node.as_list()[1].as_number(), 9223372036854775808.0);
  EXPECT_EQ(node.as_list()[2].as_number(), 1e30);
}

TEST(Json, paths_stay_short_under_a_long_key) {
  ConfigNode node = parse_json("{\"" + std::string(100000, 'k') + "\": [1]}", "a.json");
  EXPECT_LT(node.as_map()[0].second.as_list()[0].path().size(), 500U);
}

TEST(Json, messages_stay_short_and_are_text) {
  std::string umlauts;
  while (umlauts.size() < 5000) umlauts += "\u00FC";
  for (const char* before : {"", "x"}) {
    const auto message = [&](const std::string& json) {
      try {
        parse_json(json, "a.json").at("a").as_integer();
      } catch (const ConfigError& error) {
        return std::string(error.what());
      }
      return std::string("(no error)");
    };
    for (const std::string& json : {"\"" + (before + umlauts), "{\"a\": \"" + (before + umlauts) + "\"}",
                                    "{\"" + (before + umlauts) + "\": {\"b\": 1, \"b\": 1}}"}) {
      EXPECT_NE(message(json), "(no error)");
      EXPECT_LT(message(json).size(), 400U);
      EXPECT_EQ(find_invalid_utf8(message(json)), std::string::npos) << message(json);
    }
  }
}

TEST(Json, text_comes_back_from_to_json) {
  const std::string text =
      R"({"z":[1,2.5,-3],"a":{"quote \" \\ \n":"é","n":null,"t":true},"e":[],"m":{},"l":[[1],[2]]})";
  ConfigNode node = parse_json(text, "a.json");
  EXPECT_EQ(to_json(node, -1), text);
  EXPECT_EQ(to_json(parse_json(to_json(node), "b.json"), -1), text);
  EXPECT_EQ(to_json(parse_json(R"({"a":[1,2],"b":[{"c":1}]})", ""), 2),
            "{\n  \"a\": [1, 2],\n  \"b\": [\n    {\n      \"c\": 1\n    }\n  ]\n}");
  EXPECT_EQ(to_json(ConfigNode::number(2.0)), "2.0");
}

TEST(Json, to_json_refuses_infinity) {
  EXPECT_THAT(
      test::message_of<ConfigError>([] { to_json(ConfigNode::number(std::numeric_limits<double>::infinity())); }),
      HasSubstr("JSON cannot hold"));
}

TEST(Json, load_json_names_a_file_that_is_not_there) {
  test::TempFolder folder;
  EXPECT_THAT(test::message_of<IoError>([&] { load_json(folder / "none.json"); }),
              HasSubstr("none.json: no such file"));
  EXPECT_THAT(test::message_of<IoError>([&] { load_json(folder.path()); }), HasSubstr("is a folder"));
  EXPECT_EQ(load_json(folder.write("a.json", "[1]")).as_list().size(), 1U);
}

TEST(Json, load_json_refuses_files_over_64_mebibytes) {
  test::TempFolder folder;
  std::filesystem::resize_file(folder.write("big.json", ""), (uintmax_t{64} << 20) + 1);
  EXPECT_THAT(test::message_of<IoError>([&] { load_json(folder / "big.json"); }),
              HasSubstr("the limit for such files"));
}

}  // namespace
}  // namespace strobe::weights
