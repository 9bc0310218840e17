// `--offload` decides where weights lie, never what is computed.
#include "core/torch.h"
// After the precompiled header.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

using ::testing::HasSubstr;

struct CliMemory : test::Cli {
  at::Tensor latents(const std::string& offload) const {
    const std::string clip = fmt::format("{}.mp4", offload), file = fmt::format("{}.safetensors", offload);
    const auto result = generate({"--offload", offload, "-v", "-o", clip, "--save-latents", file});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr(fmt::format("offload {}", offload)));
    return weights::open_safetensors(folder / file)->read("latents");
  }
};

TEST_F(CliMemory, makes_the_same_latents_wherever_the_weights_lie) {
  const at::Tensor none = latents("none");
  EXPECT_TRUE(at::equal(latents("model"), none));
  EXPECT_TRUE(at::equal(latents("layers"), none));
}

}  // namespace
}  // namespace strobe
