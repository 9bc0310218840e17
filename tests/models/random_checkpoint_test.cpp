// Random and zero checkpoints: complete, the same for the same seed, and either whole or not there.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "core/error.h"
#include "models/model_folder.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

CheckpointFiles files(const std::string& name) { return family_of_known(name)->known_files(name, "a note"); }

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) all[fs::relative(entry.path(), folder).string()] = test::read_file(entry.path());
  }
  return all;
}

TEST(RandomCheckpoint, is_the_same_for_the_same_seed_and_loads) {
  const test::TempFolder folder;
  write_random_checkpoint(folder / "a", files("wan_tiny"), {.seed = 7});
  write_random_checkpoint(folder / "b", files("wan_tiny"), {.seed = 7});
  write_random_checkpoint(folder / "c", files("wan_tiny"), {.seed = 8});
  EXPECT_EQ(contents(folder / "a"), contents(folder / "b"));
  EXPECT_NE(contents(folder / "a"), contents(folder / "c"));

  const auto opened = open_model_folder(folder / "a");
  const auto known = family_of_known("wan_tiny")->open_known("wan_tiny");
  EXPECT_EQ(opened->info().note, "a note");
  EXPECT_EQ(opened->info().dit_parameters, known->info().dit_parameters);
  EXPECT_EQ(opened->info().defaults.num_frames, known->info().defaults.num_frames);
  EXPECT_EQ(opened->stored_parts()[0].total_bytes(), known->stored_parts()[0].total_bytes());
  EXPECT_LT(opened->load_tokenizer()->encode("a red circle, 42!", 512).size(), 20U);
  EXPECT_TRUE(opened->load_dit(0, {}));
  EXPECT_TRUE(opened->load_vae(at::kFloat, at::kCPU));
  const at::Tensor text = opened->load_text_encoder(at::kFloat, at::kCPU)->encode({5, 6, 1});
  EXPECT_TRUE(at::isfinite(text).all().item<bool>());
}

TEST(RandomCheckpoint, keeps_to_the_dtype_that_was_asked_for) {
  const test::TempFolder folder;
  write_random_checkpoint(folder / "a", files("wan_tiny"), {.dtype = at::kBFloat16});
  for (const StoredPart& part : open_model_folder(folder / "a")->stored_parts()) {
    ASSERT_EQ(part.bytes.size(), 1U) << part.name;
    EXPECT_EQ(part.bytes[0].first, at::kBFloat16) << part.name;
  }
}

TEST(RandomCheckpoint, of_zeros_takes_no_space_whatever_the_size) {
  const test::TempFolder folder;
  write_random_checkpoint(folder / "large", files("wan22_a14b"), {.is_zero = true});
  int64_t apparent = 0, used = 0, shards = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "large")) {
    struct stat status = {};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    if (!entry.is_regular_file()) continue;
    apparent += status.st_size;
    used += status.st_blocks * 512;
    shards += entry.path().extension() == ".safetensors" ? 1 : 0;
    EXPECT_LE(static_cast<uint64_t>(status.st_size), kShardBytes + 1'000'000) << entry.path();
  }
  EXPECT_GT(apparent, 126'000'000'000);
  EXPECT_LT(used, 4 << 20);
  EXPECT_EQ(shards, 12 + 12 + 1 + 3);  // as many as the published repository has
  const auto opened = open_model_folder(folder / "large");
  EXPECT_EQ(opened->info().stages, 2);
  EXPECT_EQ(opened->info().dit_parameters, 14'288'491'584);
  const auto parts = opened->stored_parts();
  ASSERT_EQ(parts.size(), 4U);
  EXPECT_EQ(parts[1].parameters, 14'288'491'584);
  EXPECT_EQ(parts[3].bytes[0].first, at::kBFloat16);
}

TEST(RandomCheckpoint, keeps_out_of_a_folder_with_something_in_it) {
  const test::TempFolder folder;
  folder.write("mine", "text");
  EXPECT_THAT(test::message_of<ConfigError>([&] { write_random_checkpoint(folder.path(), files("wan_tiny"), {}); }),
              HasSubstr("not an empty folder"));
  fs::create_directory(folder / "empty");
  EXPECT_NO_THROW(write_random_checkpoint(folder / "empty", files("wan_tiny"), {}));
}

TEST(RandomCheckpoint, leaves_nothing_behind_when_interrupted) {
  const test::TempFolder folder;
  int asked = 0;
  EXPECT_THROW(
      write_random_checkpoint(folder / "a", files("wan_tiny"), {.is_interrupted = [&] { return ++asked > 5; }}),
      InterruptedError);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(RandomCheckpoint, says_how_much_space_is_needed_before_it_writes) {
  const test::TempFolder folder;
  CheckpointFiles huge = files("wan_tiny");
  huge.weights[0].tensors.push_back({"huge", {int64_t{1} << 50}});
  EXPECT_THAT(test::message_of<IoError>([&] { write_random_checkpoint(folder / "a", huge, {}); }),
              HasSubstr("GB are needed"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace strobe::models
