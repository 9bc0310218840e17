#include "models/text/prompt_cleaning.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/compare.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

void expect_cases(const std::string& file) {
  const ConfigNode cases = weights::load_json(test::golden_path(file));
  ASSERT_GT(cases.as_list().size(), 20U);
  for (const ConfigNode& entry : cases.as_list()) {
    const std::string& raw = entry.at("text").as_string();
    EXPECT_EQ(clean_prompt(raw), entry.at("cleaned").as_string()) << "of: " << raw;
  }
}

TEST(PromptCleaning, equals_the_reference_pipeline) { expect_cases("wan_a/tokenizer_cases.json"); }

TEST(PromptCleaning, equals_the_reference_on_odd_texts) { expect_cases("text/cleaning_cases.json"); }

TEST(PromptCleaning, collapses_and_strips_white_space) {
  EXPECT_EQ(clean_prompt("  a \t\n b\u00A0\u3000c\u2003 "), "a b c");
  EXPECT_EQ(clean_prompt(" \n "), "");
  EXPECT_EQ(clean_prompt(""), "");
}

TEST(PromptCleaning, replaces_typographic_forms) {
  EXPECT_EQ(clean_prompt("\u201Chi\u201D \u2018a\u2019"), "\"hi\" 'a'");
  EXPECT_EQ(clean_prompt("\uFF21\uFF22\uFF0C\u3002"), "AB,\u3002");
  EXPECT_EQ(clean_prompt("\uFF76\uFF9E"), "\u30AC");
  EXPECT_EQ(clean_prompt("\uFB01ne cafe\u0301"), "fine caf\u00E9");
}

TEST(PromptCleaning, repairs_utf8_that_was_read_as_a_code_page) {
  EXPECT_EQ(clean_prompt("caf\u00C3\u00A9"), "caf\u00E9");
  EXPECT_EQ(clean_prompt("l\u00E2\u20AC\u2122\u00E9t\u00E9"), "l'\u00E9t\u00E9");
  EXPECT_EQ(clean_prompt("caf\u00E9 \u00E0 la carte"), "caf\u00E9 \u00E0 la carte");
}

TEST(PromptCleaning, decodes_html_references_twice) {
  EXPECT_EQ(clean_prompt("&amp;lt;b&amp;gt;"), "<b>");
  EXPECT_EQ(clean_prompt("&#39;&#x27;&#150;"), "''\u2013");
  EXPECT_EQ(clean_prompt("&notit; &copy2020"), "\u00ACit; \u00A92020");
  EXPECT_EQ(clean_prompt("&#99999999999999999999;"), "\uFFFD");
}

TEST(PromptCleaning, removes_controls_and_terminal_escapes) {
  EXPECT_EQ(clean_prompt("\uFEFF\x1B[31;1mred\x1B[0m\x07 cat"), "red cat");
  EXPECT_EQ(clean_prompt(std::string("a\0b", 3)), "ab");
}

TEST(PromptCleaning, survives_bytes_that_are_no_utf8) {
  EXPECT_EQ(clean_prompt("a\xFF\xC3(b"), "a\uFFFD\uFFFD(b");
  EXPECT_EQ(clean_prompt("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(clean_prompt("\xF0\x9F\x8E"), "\uFFFD");
}

}  // namespace
}  // namespace strobe::models
