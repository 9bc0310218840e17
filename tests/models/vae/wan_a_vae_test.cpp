// The tiny published-layout checkpoint against the stages that the reference pipeline computed from it.
#include "core/torch.h"
#include "models/vae/wan_vae.h"
#include "tests/models/vae/tiny_vaes.h"
#include "tests/support/compare.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

using test::golden_path;
using test::matches;

struct WanA {
  std::shared_ptr<const weights::TensorSource> bisect =
      weights::open_safetensors(golden_path("wan_a/bisect.safetensors"));
  std::shared_ptr<const weights::TensorSource> reference =
      weights::open_safetensors(golden_path("wan_a/reference.safetensors"));
  std::map<std::string, at::Tensor> seen;
  std::unique_ptr<Vae> vae;

  WanA() {
    const WanVaeConfig config =
        WanVaeConfig::from_json(weights::load_json(golden_path("wan_a/checkpoint/vae/config.json")));
    const auto source = weights::open_weights(golden_path("wan_a/checkpoint/vae"));
    const auto store =
        weights::WeightStore::bind(source, wan_vae_parameters(config), "vae", wan_vae_rename(config, *source));
    vae = make_wan_vae(config, store, at::kFloat, at::kCPU,
                       {.chunk_latent_frames = 1, .probe = [this](const std::string& name, const at::Tensor& value) {
                          seen[name] = value.clone();
                        }});
  }

  void expect_stages(const std::string& half) {
    int64_t compared = 0;
    for (const weights::TensorInfo& info : bisect->tensors()) {
      if (!info.name.starts_with("vae." + half + ".chunk")) continue;
      const auto found = seen.find(info.name.substr(4));
      ASSERT_NE(found, seen.end()) << info.name;
      EXPECT_TRUE(matches(found->second.unsqueeze(0), bisect->read(info.name))) << info.name;
      ++compared;
    }
    EXPECT_GE(compared, 3);
  }
};

TEST(WanAVae, decode_matches_every_stage) {
  WanA wan;
  const at::Tensor frames = decode_clip(*wan.vae, wan.reference->read("p0.final_latents").squeeze(0));
  wan.expect_stages("dec");
  EXPECT_TRUE(matches(frames.narrow(1, 0, 5).unsqueeze(0), wan.bisect->read("vae.dec.output_first5")));
}

TEST(WanAVae, decoded_frames_match_the_pipeline) {
  WanA wan;
  for (const std::string prompt : {"p0", "p1"}) {
    const at::Tensor frames = decode_clip(*wan.vae, wan.reference->read(prompt + ".final_latents").squeeze(0));
    const at::Tensor bytes = at::round((frames / 2 + 0.5).clamp(0, 1) * 255).to(at::kByte).permute({1, 2, 3, 0});
    const at::Tensor expected = wan.reference->read(prompt + ".frames_u8");
    ASSERT_EQ(bytes.sizes(), expected.sizes());
    EXPECT_GT(test::psnr_db(bytes, expected), 80.0);
  }
}

TEST(WanAVae, encode_matches_every_stage) {
  WanA wan;
  const at::Tensor bytes = wan.bisect->read("vae.enc.clip_u8");
  const at::Tensor clip = (bytes.to(at::kFloat) * 2 / 255 - 1).permute({3, 0, 1, 2});
  const at::Tensor latents = encode_clip(*wan.vae, clip);
  wan.expect_stages("enc");
  EXPECT_TRUE(matches(latents.unsqueeze(0), wan.bisect->read("vae.enc.normalised")));
}

}  // namespace
}  // namespace strobe::models
