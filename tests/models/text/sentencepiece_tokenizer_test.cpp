#include "models/text/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/support/compare.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFolder = "wan_a/checkpoint/tokenizer";

// A folder below the temporary one, empty at first and removed at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = fs::path(::testing::TempDir()) / (std::string("strobe_") + info->test_suite_name() + "_" + info->name());
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

void expect_cases(const Tokenizer& tokenizer, const std::string& file, const char* text_key) {
  const ConfigNode cases = weights::load_json(test::golden_path(file));
  ASSERT_GT(cases.as_list().size(), 20U);
  for (const ConfigNode& entry : cases.as_list()) {
    std::vector<int32_t> expected;
    for (const ConfigNode& id : entry.at("ids").as_list()) expected.push_back(static_cast<int32_t>(id.as_integer()));
    const std::string& prompt = entry.at(text_key).as_string();
    EXPECT_EQ(tokenizer.encode(prompt, 512), expected) << "of: " << prompt;
  }
}

// tokenizer.json of the golden folder with one change; the error it leads to.
std::string error_after(const std::string& from, const std::string& to) {
  const ScratchFolder folder;
  std::string json = read_bytes(fs::path(test::golden_path(kFolder)) / "tokenizer.json");
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  json.replace(at, from.size(), to);
  write_bytes(folder.path() / "tokenizer.json", json);
  try {
    open_tokenizer(folder.path());
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SentencePieceTokenizer, equals_the_reference_ids) {
  const auto tokenizer = open_tokenizer(test::golden_path(kFolder));
  expect_cases(*tokenizer, "wan_a/tokenizer_cases.json", "cleaned");
  expect_cases(*tokenizer, "text/tokenizer_cases.json", "text");
}

TEST(SentencePieceTokenizer, equals_the_reference_ids_from_the_piece_model_alone) {
  const ScratchFolder folder;
  for (const char* name : {"spiece.model", "tokenizer_config.json"})
    fs::copy_file(fs::path(test::golden_path(kFolder)) / name, folder.path() / name);
  const auto tokenizer = open_tokenizer(folder.path());
  expect_cases(*tokenizer, "wan_a/tokenizer_cases.json", "cleaned");
  expect_cases(*tokenizer, "text/tokenizer_cases.json", "text");
}

TEST(SentencePieceTokenizer, keeps_the_end_token_when_it_cuts) {
  const auto tokenizer = open_tokenizer(test::golden_path(kFolder));
  const std::vector<int32_t> whole = tokenizer->encode("A cat walks on the grass", 512);
  const std::vector<int32_t> cut = tokenizer->encode("A cat walks on the grass", 4);
  ASSERT_GT(whole.size(), 4U);
  EXPECT_THAT(cut, ElementsAre(whole[0], whole[1], whole[2], 1));
  EXPECT_THAT(tokenizer->encode("A cat", 1), ElementsAre(1));
  EXPECT_THROW(tokenizer->encode("A cat", 0), ShapeError);
}

TEST(SentencePieceTokenizer, gives_special_tokens_in_the_text_their_ids) {
  const auto tokenizer = open_tokenizer(test::golden_path(kFolder));
  EXPECT_THAT(tokenizer->encode("</s><pad><extra_id_0>", 512), ElementsAre(1, 0, 655, 1));
}

TEST(SentencePieceTokenizer, survives_long_text_and_wrong_bytes) {
  const auto tokenizer = open_tokenizer(test::golden_path(kFolder));
  EXPECT_EQ(tokenizer->encode(std::string(50000, 'a'), 512).size(), 512U);
  EXPECT_EQ(tokenizer->encode("\xFF\xFE", 512), tokenizer->encode("\uFFFD\uFFFD", 512));
}

TEST(SentencePieceTokenizer, names_the_folder_without_a_tokenizer) {
  const ScratchFolder folder;
  try {
    open_tokenizer(folder.path());
    FAIL();
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr(folder.path().string()));
    EXPECT_THAT(error.what(), HasSubstr("neither tokenizer.json nor spiece.model"));
  }
}

TEST(SentencePieceTokenizer, names_file_and_key_of_what_it_cannot_follow) {
  EXPECT_THAT(error_after("\"Unigram\"", "\"BPE\""), HasSubstr("model.type"));
  EXPECT_THAT(error_after("\"unk_id\": 3", "\"unk_id\": 100000"), HasSubstr("unk_id"));
  EXPECT_THAT(error_after("\"unk_id\": 3", "\"unk_id\": -1"), HasSubstr("unk_id"));
  EXPECT_THAT(error_after("\"Metaspace\"", "\"ByteLevel\""), HasSubstr("pre_tokenizer"));
  EXPECT_THAT(error_after("\"Precompiled\"", "\"BertNormalizer\""), HasSubstr("normalizers"));
  EXPECT_THAT(error_after("\"precompiled_charsmap\": \"", "\"precompiled_charsmap\": \"?"), HasSubstr("base64"));
  EXPECT_THAT(error_after("\"precompiled_charsmap\": \"", "\"precompiled_charsmap\": \"////"), HasSubstr("charsmap"));
  EXPECT_THAT(error_after("\"TemplateProcessing\"", "\"RobertaProcessing\""), HasSubstr("post_processor"));
  EXPECT_THAT(error_after("\"id\": 0", "\"id\": -7"), HasSubstr("added_tokens"));
  EXPECT_THAT(error_after("\"Unigram\"", "\"BPE\""), HasSubstr("tokenizer.json"));
}

// A tokenizer.json of four pieces.
std::string small_json(const std::string& normalizer, const std::string& ids) {
  return R"({"model": {"vocab": [["</s>", 0], ["<unk>", 0], ["a", -1], ["b", -2]], "unk_id": 1},
             "normalizer": )" +
         normalizer + R"(, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"},
             "post_processor": {"type": "TemplateProcessing",
                                "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
                                "special_tokens": {"</s>": {"ids": )" +
         ids + "}}}}";
}

TEST(SentencePieceTokenizer, reads_the_bytes_of_a_file) {
  EXPECT_THAT(parse_tokenizer_json(small_json("null", "[0]"), "t.json")->encode("ab", 8), ElementsAre(2, 3, 0));
}

TEST(SentencePieceTokenizer, refuses_a_template_that_leaves_no_room) {
  std::string ids = "[0";
  for (int i = 1; i < 17; ++i) ids += ", 0";
  try {
    parse_tokenizer_json(small_json("null", ids + "]"), "t.json");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "t.json: post_processor: expected at most 16 ids around the text, got 17");
  }
}

TEST(SentencePieceTokenizer, limits_what_normalisation_makes_of_a_text) {
  const std::string grow =
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + std::string(100, 'a') + "\"}";
  std::string steps = grow;
  for (int i = 0; i < 20; ++i) steps += ", " + grow;
  const auto tokenizer =
      parse_tokenizer_json(small_json("{\"type\": \"Sequence\", \"normalizers\": [" + steps + "]}", "[0]"), "t.json");
  EXPECT_THAT(tokenizer->encode("b", 8), ElementsAre(3, 0));
  try {
    tokenizer->encode("a", 8);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("makes a text longer than 4194304 characters"));
  }
}

TEST(SentencePieceTokenizer, never_crashes_on_a_damaged_piece_model) {
  const ScratchFolder folder;
  const std::string good = read_bytes(fs::path(test::golden_path(kFolder)) / "spiece.model");
  const fs::path path = folder.path() / "spiece.model";
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 150; ++round) {
    std::string bytes = good;
    if (round % 3 == 0) bytes.resize(random() % bytes.size());
    for (int change = 0; change < 20 && !bytes.empty(); ++change)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    write_bytes(path, bytes);
    try {
      open_tokenizer(folder.path())->encode("\u201CA cat\u201D caf\u00E9 \uFF21 \u6E05\u6668 e\u0301 \U0001F389", 512);
    } catch (const ConfigError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("spiece.model"));
    }
  }
  EXPECT_GT(refused, 20);
}

TEST(WordTokenizer, gives_each_word_one_piece_and_spells_the_rest) {
  const ScratchFolder folder;
  write_word_tokenizer(folder.path(), {"a", "red", "circle"});
  const auto tokenizer = open_tokenizer(folder.path());
  // 3.. words, 6 comma, 7 the bare mark, 8.. letters.
  EXPECT_THAT(tokenizer->encode("a red circle", 16), ElementsAre(3, 4, 5, 1));
  EXPECT_THAT(tokenizer->encode("a  red,", 16), ElementsAre(3, 4, 6, 1));
  EXPECT_THAT(tokenizer->encode("bad", 16), ElementsAre(7, 9, 8, 11, 1));
  EXPECT_THAT(tokenizer->encode("\u6E05", 16), ElementsAre(7, 2, 1));
  EXPECT_THAT(tokenizer->encode("", 16), ElementsAre(1));
}

TEST(WordTokenizer, writes_two_files_that_say_the_same) {
  const ScratchFolder folder;
  write_word_tokenizer(folder.path(), {"a", "red", "circle", "moving"});
  const auto from_json = open_tokenizer(folder.path());
  fs::remove(folder.path() / "tokenizer.json");
  const auto from_model = open_tokenizer(folder.path());
  for (const char* prompt : {"a red circle moving, 12!", "  Red  </s> a<pad>", "\u00E9t\u00E9 don't"})
    EXPECT_EQ(from_json->encode(prompt, 64), from_model->encode(prompt, 64)) << prompt;
}

TEST(WordTokenizer, refuses_words_that_are_none) {
  const ScratchFolder folder;
  EXPECT_THROW(write_word_tokenizer(folder.path(), {""}), ConfigError);
  EXPECT_THROW(write_word_tokenizer(folder.path(), {"two words"}), ConfigError);
  EXPECT_THROW(write_word_tokenizer(folder.path(), {"a", "a"}), ConfigError);
}

}  // namespace
}  // namespace strobe::models
