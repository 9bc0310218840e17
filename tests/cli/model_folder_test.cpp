// Model folders with something missing or wrong: told before any work, and nothing left over.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/support/compare.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

struct CliModelFolder : test::Cli {
  CliModelFolder() { fs::copy(test::golden_path("wan_a/checkpoint"), folder / "t5", fs::copy_options::recursive); }

  // A key of a part's config.json, set anew.
  void set(const std::string& file, const std::string& key, ConfigNode value) const {
    ConfigNode config = weights::load_json(folder / file);
    config.set(key, std::move(value));
    folder.write(file, weights::to_json(config));
  }
  std::string refusal() const {
    const auto result = generate({"--model", "t5", "-o", "x.mp4"});
    EXPECT_EQ(result.exit_code, 1) << result.err;
    EXPECT_THAT(result.err, Not(HasSubstr("denoise")));
    for (const auto& entry : fs::directory_iterator(folder.path())) EXPECT_EQ(entry.path().filename(), "t5");
    return result.err;
  }
};

TEST_F(CliModelFolder, names_the_part_that_is_missing) {
  for (const char* part : {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}) {
    fs::rename(folder / "t5" / part, folder / "t5" / "away");
    EXPECT_THAT(refusal(), HasSubstr(fmt::format("t5: no {}/ folder", part)));
    fs::rename(folder / "t5" / "away", folder / "t5" / part);
  }
  fs::remove_all(folder / "t5" / "tokenizer");
  fs::remove(folder / "t5" / "scheduler" / "scheduler_config.json");
  EXPECT_THAT(refusal(),
              HasSubstr("t5: no tokenizer/ folder, no scheduler/scheduler_config.json; model_index.json asks"));
}

TEST_F(CliModelFolder, needs_no_scheduler_that_its_index_does_not_list) {
  fs::remove_all(folder / "t5" / "scheduler");
  set("t5/model_index.json", "scheduler", ConfigNode::list({ConfigNode::null(), ConfigNode::null()}));
  const auto result = generate({"--model", "t5", "-o", "x.mp4"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(CliModelFolder, names_the_tensor_that_its_configuration_contradicts) {
  struct Case {
    const char *part, *key;
    int64_t value;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"transformer", "num_layers", 4, "blocks.3.attn1.to_q.weight [64, 64]"},
      {"transformer", "num_layers", 2, "blocks.2.attn1.to_q.weight [64, 64]"},
      {"transformer", "ffn_dim", 176, "blocks.0.ffn.net.0.proj.weight: expected [176, 64], found [160, 64]"},
      {"text_encoder", "num_layers", 3, "encoder.block.2.layer.0.SelfAttention.q.weight"},
      {"text_encoder", "d_ff", 80, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight: expected [80, 48]"},
      {"vae", "base_dim", 16, "decoder.conv_in.weight: expected"}};
  for (const Case& test : cases) {
    const std::string file = fmt::format("t5/{}/config.json", test.part);
    const std::string whole = test::read_file(folder / file);
    set(file, test.key, ConfigNode::integer(test.value));
    SCOPED_TRACE(fmt::format("{}: {} {}", test.part, test.key, test.value));
    EXPECT_THAT(refusal(),
                AllOf(HasSubstr(fmt::format("{}: the weights do not fit", test.part)), HasSubstr(test.message)));
    folder.write(file, whole);
  }
}

}  // namespace
}  // namespace strobe
