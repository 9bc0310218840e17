// The fuzzers' inputs, replayed by every build: a finding stays fixed without clang.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/fuzz_targets.h"

namespace strobe::fuzz {
namespace {

int replay(const std::string& folder, void (*drive)(std::string_view)) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(STROBE_FUZZ_CORPUS_DIR) + "/" + folder)) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    drive(bytes);
    // Every shorter file too: a download may stop anywhere.
    for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 64)
      drive(std::string_view(bytes).substr(0, size));
    ++count;
  }
  return count;
}

}  // namespace

TEST(Corpus, json_inputs_are_read_or_refused) { EXPECT_GT(replay("json", drive_json), 0); }

TEST(Corpus, safetensors_inputs_are_read_or_refused) { EXPECT_GT(replay("safetensors", drive_safetensors), 0); }

TEST(Corpus, torch_archive_inputs_are_read_or_refused) { EXPECT_GT(replay("torch_archive", drive_torch_archive), 0); }

TEST(Corpus, yaml_inputs_are_read_or_refused) { EXPECT_GT(replay("yaml", drive_yaml), 0); }

TEST(Corpus, prompt_file_inputs_are_read_or_refused) { EXPECT_GT(replay("prompt_file", drive_prompt_file), 0); }

TEST(Corpus, tokenizer_inputs_are_read_or_refused) { EXPECT_GT(replay("tokenizer", drive_tokenizer), 0); }

}  // namespace strobe::fuzz
