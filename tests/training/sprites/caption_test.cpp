#include "training/sprites/caption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "core/error.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "tests/support/temp_folder.h"

namespace strobe::training::sprites {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMaxTokens = 512;

Scene one_object(const ObjectAttributes& attributes, Background background) {
  Scene scene;
  scene.background = background;
  scene.objects = {{.attributes = attributes}};
  return scene;
}

TEST(SpriteCaption, writes_the_five_forms) {
  const Scene scene = one_object({Size::kLarge, Colour::kRed, Shape::kCircle, Motion::kLeft}, Background::kWhite);
  EXPECT_EQ(caption(scene, CaptionForm::kFull), "a large red circle moving left on a white background");
  EXPECT_EQ(caption(scene, CaptionForm::kTerse), "large red circle moving left, white background");
  EXPECT_EQ(caption(scene, CaptionForm::kWithoutSize), "a red circle moving left on a white background");
  EXPECT_EQ(caption(scene, CaptionForm::kObjectOnly), "a red circle moving left");
  EXPECT_EQ(caption(scene, CaptionForm::kVerb), "a red circle moves left over a white background");
  const Scene orange =
      one_object({Size::kSmall, Colour::kOrange, Shape::kRing, Motion::kCircling}, Background::kCheckered);
  EXPECT_EQ(caption(orange, CaptionForm::kVerb), "an orange ring goes in a circle over a checkered background");
  EXPECT_EQ(caption(orange, CaptionForm::kFull), "a small orange ring going in a circle on a checkered background");
  Scene two = scene;
  two.objects.push_back(orange.objects[0]);
  EXPECT_EQ(caption(two, CaptionForm::kTerse),
            "large red circle moving left and small orange ring going in a circle, white background");
}

TEST(SpriteCaption, reading_gives_what_writing_named) {
  std::set<std::string> seen;
  for (uint64_t index = 0; index < 2000; ++index) {
    const Scene scene = draw_scene(5, index, {.num_objects = index % 3 == 0 ? 2 : 1, .split = Split::kAll});
    for (int form = 0; form < kNumCaptionForms; ++form) {
      const auto as = static_cast<CaptionForm>(form);
      const std::string text = caption(scene, as);
      EXPECT_EQ(parse_caption(text), named_attributes(scene, as)) << text;
      seen.insert(text);
    }
  }
  EXPECT_GT(seen.size(), 5000U);
}

TEST(SpriteCaption, reads_what_people_write_of_it) {
  const NamedAttributes named = parse_caption("  A Red  star\tspins on a black background. ");
  ASSERT_EQ(named.objects.size(), 1U);
  EXPECT_EQ(named.objects[0].motion, Motion::kSpinning);
  EXPECT_EQ(named.objects[0].size, std::nullopt);
  EXPECT_EQ(named.background, Background::kBlack);
  EXPECT_EQ(parse_caption("circle").objects[0].shape, Shape::kCircle);
  EXPECT_TRUE(parse_caption("").objects.empty());
}

TEST(SpriteCaption, refuses_what_is_no_caption_and_says_why) {
  const auto message = [](const char* text) {
    try {
      parse_caption(text);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("a red circel growing"), HasSubstr("unknown word 'circel'; did you mean 'circle'?"));
  EXPECT_THAT(message("a red growing circle"), HasSubstr("word 3, 'growing', is out of place"));
  EXPECT_THAT(message("a red circle growing on a"), HasSubstr("it breaks off"));
  EXPECT_THAT(message("a red circle growing growing"), HasSubstr("word 5"));
}

TEST(SpriteCaption, evaluation_captions_are_fixed_and_unseen) {
  const std::vector<Scene> scenes = evaluation_scenes();
  std::ifstream file(STROBE_SOURCE_DIR "/assets/prompts/sprites_evaluation.txt");
  for (const Scene& scene : scenes) {
    std::string line;
    ASSERT_TRUE(std::getline(file, line));
    ASSERT_EQ(caption(scene), line) << "the evaluation captions are fixed: published scores were measured on them";
  }
  ASSERT_EQ(scenes.size(), static_cast<size_t>(kNumEvaluationScenes));
  std::set<std::string> captions;
  for (const Scene& scene : scenes) {
    EXPECT_TRUE(is_held_out(scene.objects[0].attributes, scene.background));
    EXPECT_TRUE(captions.insert(caption(scene)).second);
    EXPECT_TRUE(parse_caption(caption(scene)).background.has_value());
  }
  for (uint64_t index = 0; index < 20'000; ++index) {
    const Scene scene = draw_scene(1, index);
    EXPECT_FALSE(captions.contains(caption(scene))) << caption(scene);
  }
}

TEST(SpriteCaption, every_word_is_one_token_in_both_files) {
  const test::TempFolder folder;
  write_tokenizer(folder.path());
  const auto whole = models::open_tokenizer(folder.path());
  std::filesystem::remove(folder.path() / "tokenizer.json");
  const auto spiece = models::open_tokenizer(folder.path());
  std::set<std::string> used;
  for (uint64_t index = 0; index < 500; ++index) {
    const Scene scene = draw_scene(6, index, {.num_objects = index % 2 == 0 ? 1 : 2, .split = Split::kAll});
    const std::string text = caption(scene);
    size_t words = 1;
    for (const char c : text) words += c == ' ' || c == ',' ? 1 : 0;
    const std::vector<int32_t> ids = whole->encode(text, kMaxTokens);
    EXPECT_EQ(ids.size(), words + 1) << text;
    EXPECT_EQ(ids.back(), 1);
    EXPECT_EQ(ids, spiece->encode(text, kMaxTokens));
  }
  // The README's example, by ids: 3 + the place in the vocabulary.
  const auto id = [](const std::string& word) {
    const auto& words = vocabulary();
    return static_cast<int32_t>(3 + (std::find(words.begin(), words.end(), word) - words.begin()));
  };
  std::vector<int32_t> expected;
  for (const char* word : {"a", "large", "red", "circle", "moving", "left", "on", "a", "white", "background"}) {
    expected.push_back(id(word));
  }
  expected.push_back(1);
  EXPECT_EQ(whole->encode("a large red circle moving left on a white background", kMaxTokens), expected);
  EXPECT_EQ(vocabulary().size(), 47U);
}

}  // namespace
}  // namespace strobe::training::sprites
