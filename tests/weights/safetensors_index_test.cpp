#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::weights {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    save_safetensors(folder_ / kFirst, {{"b", at::full({2}, 1.0F)}, {"c", at::full({1}, 3.0F)}}, {{"format", "pt"}});
    save_safetensors(folder_ / kSecond, {{"a", at::full({2}, 2.0F)}});
  }

  std::filesystem::path write_index(const std::string& weight_map) {
    return folder_.write("model.safetensors.index.json",
                         R"({"metadata": {"total_size": 20}, "weight_map": )" + weight_map + "}");
  }

  std::string refusal(const std::string& weight_map) {
    const std::filesystem::path path = write_index(weight_map);
    return test::message_of<WeightError>([&] { open_safetensors_index(path); });
  }

  test::TempFolder folder_;
  const std::string whole_ = fmt::format(R"({{"a": "{}", "b": "{}", "c": "{}"}})", kSecond, kFirst, kFirst);
};

TEST_F(Shards, are_read_as_one_source) {
  auto source = open_safetensors_index(write_index(whole_));
  ASSERT_EQ(source->tensors().size(), 3U);
  EXPECT_EQ(source->tensors()[0].name, "a");
  EXPECT_EQ(source->read("a")[0].item<float>(), 2);
  EXPECT_EQ(source->read("b")[0].item<float>(), 1);
  EXPECT_EQ(source->file_of("a"), (folder_ / kSecond).string());
  EXPECT_EQ(source->metadata().at("format"), "pt");
  EXPECT_THAT(test::message_of<WeightError>([&] { source->read("x"); }), HasSubstr("x: no such tensor"));
}

TEST_F(Shards, a_missing_shard_is_named) {
  std::filesystem::remove(folder_ / kSecond);
  EXPECT_THAT(refusal(whole_),
              EndsWith(fmt::format("model.safetensors.index.json: shards are missing:\n  {}", kSecond)));
}

TEST_F(Shards, a_tensor_that_its_shard_lacks_is_named) {
  EXPECT_THAT(refusal(fmt::format(R"({{"a": "{1}", "b": "{0}", "c": "{0}", "d": "{0}"}})", kFirst, kSecond)),
              EndsWith(fmt::format("index and shards disagree:\n  d: not in shard {}", kFirst)));
}

TEST_F(Shards, a_tensor_that_the_index_lacks_is_named) {
  EXPECT_THAT(refusal(fmt::format(R"({{"a": "{1}", "b": "{0}"}})", kFirst, kSecond)),
              EndsWith(fmt::format("c: in shard {}, not in the index", kFirst)));
}

TEST_F(Shards, a_tensor_in_another_shard_than_the_index_says_is_named) {
  EXPECT_THAT(refusal(fmt::format(R"({{"a": "{1}", "b": "{0}", "c": "{1}"}})", kFirst, kSecond)),
              HasSubstr(fmt::format("c: in shard {}, but the index says {}", kFirst, kSecond)));
}

TEST_F(Shards, paths_out_of_the_folder_are_refused) {
  for (const char* name : {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "a\\\\b"}) {
    EXPECT_THAT(refusal(fmt::format(R"({{"a": "{}"}})", name)),
                AllOf(HasSubstr("index.json: a: "), HasSubstr("is not the name of a file in the same folder")));
  }
}

TEST_F(Shards, a_malformed_index_is_a_weight_error) {
  EXPECT_THAT(refusal("{"), HasSubstr("index.json:1:"));
  EXPECT_THAT(refusal("[]"), HasSubstr("weight_map: expected a map, got a list"));
  EXPECT_THAT(refusal(R"({"a": 1})"), HasSubstr("weight_map.a: expected a string"));
  EXPECT_THAT(refusal("{}"), EndsWith("weight_map is empty"));
  EXPECT_THAT(refusal(R"({"a": "x", "a": "x"})"), HasSubstr("weight_map.a: the key stands twice"));
}

TEST_F(Shards, open_weights_takes_the_folder_or_the_index) {
  std::filesystem::path index = write_index(whole_);
  EXPECT_EQ(open_weights(folder_.path())->tensors().size(), 3U);
  EXPECT_EQ(open_weights(index)->tensors().size(), 3U);
  EXPECT_EQ(open_weights(folder_ / kFirst)->tensors().size(), 2U);
}

std::string chosen(const test::TempFolder& folder) {
  return std::filesystem::path(open_weights(folder.path())->file_of("a")).filename().string();
}

TEST(OpenWeights, prefers_the_plain_name_to_a_variant) {
  test::TempFolder folder;
  save_safetensors(folder / "diffusion_pytorch_model.fp16.safetensors", {{"a", at::zeros({1})}});
  EXPECT_EQ(chosen(folder), "diffusion_pytorch_model.fp16.safetensors");
  save_safetensors(folder / "diffusion_pytorch_model.safetensors", {{"a", at::zeros({1})}});
  EXPECT_EQ(chosen(folder), "diffusion_pytorch_model.safetensors");
}

TEST(OpenWeights, takes_the_index_of_a_variant) {
  for (const char* name : {"model.fp16.safetensors.index.json", "model.safetensors.fp16.index.json",
                           "model.safetensors.index.fp16.json"}) {
    test::TempFolder folder;
    save_safetensors(folder / "model-00001-of-00001.fp16.safetensors", {{"a", at::zeros({1})}});
    folder.write(name, R"({"weight_map": {"a": "model-00001-of-00001.fp16.safetensors"}})");
    EXPECT_EQ(chosen(folder), "model-00001-of-00001.fp16.safetensors");
  }
}

TEST(OpenWeights, refuses_to_choose_between_candidates) {
  test::TempFolder folder;
  save_safetensors(folder / "model.fp16.safetensors", {});
  save_safetensors(folder / "model.bf16.safetensors", {});
  EXPECT_THAT(
      test::message_of<WeightError>([&] { open_weights(folder.path()); }),
      EndsWith("more than one candidate: model.bf16.safetensors, model.fp16.safetensors; name the file itself"));
}

TEST(OpenWeights, lists_what_was_looked_for) {
  test::TempFolder folder;
  folder.write("model.bin", "");
  folder.write("model.safetensors.json", "");
  folder.write("model..safetensors", "");
  EXPECT_THAT(test::message_of<WeightError>([&] { open_weights(folder.path()); }),
              AllOf(HasSubstr("no weights; looked for diffusion_pytorch_model.safetensors, "),
                    HasSubstr("model.safetensors.index.json")));
  EXPECT_THAT(test::message_of<WeightError>([&] { open_weights(folder / "model.bin"); }),
              HasSubstr("model.bin: weights are .safetensors"));
  EXPECT_THAT(test::message_of<WeightError>([&] { open_weights(folder / "none"); }),
              EndsWith("no such file or folder"));
}

}  // namespace
}  // namespace strobe::weights
