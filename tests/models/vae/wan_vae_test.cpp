#include <gmock/gmock.h>

#include "core/torch.h"
#include "models/vae/first_frame_condition.h"
#include "models/vae/wan_vae.h"
#include "tests/models/vae/tiny_vaes.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace strobe::models {
namespace {

using test::fill_input;
using test::matches;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(WanVae, chunk_length_does_not_change_the_decoded_frames) {
  for (const WanVaeConfig& config : {tiny_21b(), tiny_22(), odd_plain()}) {
    const at::Tensor latents = fill_input(60, {config.latent_channels, 6, 3, 4});
    const at::Tensor single = decode_clip(*make_tiny(config, {.chunk_latent_frames = 1}), latents);
    EXPECT_EQ(single.size(1), config.temporal_stride() * 5 + 1);
    for (int64_t length : {0, 2, 4, 5}) {
      const at::Tensor frames = decode_clip(*make_tiny(config, {.chunk_latent_frames = length}), latents);
      EXPECT_TRUE(matches(frames, single, {.relative_l2 = 5e-6})) << "chunks of " << length;
    }
  }
}

TEST(WanVae, chunk_length_does_not_change_the_latents) {
  for (const WanVaeConfig& config : {tiny_21b(), tiny_22(), odd_plain()}) {
    const int64_t side = 2 * config.spatial_stride(), frames = config.temporal_stride() * 5 + 1;
    const at::Tensor clip = fill_input(61, {3, frames, side, 2 * side}, 1.0);
    const at::Tensor single = encode_clip(*make_tiny(config, {.chunk_latent_frames = 1}), clip);
    EXPECT_EQ(single.sizes(), (std::vector<int64_t>{config.latent_channels, 6, 2, 4}));
    for (int64_t length : {0, 2, 4, 5}) {
      const at::Tensor latents = encode_clip(*make_tiny(config, {.chunk_latent_frames = length}), clip);
      EXPECT_TRUE(matches(latents, single, {.relative_l2 = 5e-6})) << "chunks of " << length;
    }
  }
}

// Every float32 fast path against the plain operators, which any other dtype takes.
TEST(WanVae, float32_kernels_agree_with_float64) {
  for (const WanVaeConfig& config : {tiny_21b(), tiny_22(), odd_plain()}) {
    const std::vector<weights::TensorSpec> specs = wan_vae_parameters(config);
    const auto store = weights::WeightStore::bind(test::fill_model(specs), specs, "vae");
    const std::unique_ptr<Vae> fast = make_wan_vae(config, store), plain = make_wan_vae(config, store, at::kDouble);
    const at::Tensor latents = fill_input(62, {config.latent_channels, 3, 5, 3});
    EXPECT_TRUE(matches(decode_clip(*fast, latents), decode_clip(*plain, latents), {.relative_l2 = 5e-6}));
    const int64_t side = 3 * config.spatial_stride();
    const at::Tensor clip = fill_input(63, {3, 2 * config.temporal_stride() + 1, side, side}, 1.0);
    EXPECT_TRUE(matches(encode_clip(*fast, clip), encode_clip(*plain, clip), {.relative_l2 = 5e-6}));
  }
}

TEST(WanVae, one_latent_frame_is_one_frame) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_22());
  const at::Tensor latents = fill_input(64, {8, 3, 2, 2});
  const at::Tensor one = decode_clip(*vae, latents.narrow(1, 0, 1));
  EXPECT_EQ(one.sizes(), (std::vector<int64_t>{3, 1, 32, 32}));
  EXPECT_TRUE(matches(one, decode_clip(*vae, latents).narrow(1, 0, 1), {.relative_l2 = 1e-6}));
  EXPECT_EQ(encode_clip(*vae, one).sizes(), (std::vector<int64_t>{8, 1, 2, 2}));
}

TEST(WanVae, encode_drops_frames_beyond_whole_groups) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21());
  const at::Tensor clip = fill_input(65, {3, 12, 16, 16}, 1.0);
  const at::Tensor expected = encode_clip(*vae, clip.narrow(1, 0, 9));
  for (int64_t frames : {10, 11, 12}) EXPECT_TRUE(matches(encode_clip(*vae, clip.narrow(1, 0, frames)), expected));
}

TEST(WanVae, encode_accepts_a_source_that_gives_single_frames) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21());
  const at::Tensor clip = fill_input(66, {3, 9, 16, 24}, 1.0);
  FrameSource inner = clip_source(clip);
  EXPECT_TRUE(matches(vae->encode([&](int64_t) { return inner(1); }, {}), encode_clip(*vae, clip)));
}

TEST(WanVae, decode_hands_over_one_frame_then_chunks) {
  std::vector<int64_t> lengths;
  make_tiny(tiny_21(), {.chunk_latent_frames = 2})
      ->decode(fill_input(67, {16, 6, 2, 2}), {}, [&](const at::Tensor& frames) { lengths.push_back(frames.size(1)); });
  EXPECT_EQ(lengths, (std::vector<int64_t>{1, 8, 8, 4}));
}

TEST(WanVae, tiles_larger_than_the_clip_change_nothing) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21b());
  const at::Tensor latents = fill_input(68, {4, 2, 4, 5});
  const VaeTiling tiling = {.is_enabled = true, .tile_px = 64, .stride_px = 48};
  const at::Tensor frames = decode_clip(*vae, latents);
  EXPECT_TRUE(matches(decode_clip(*vae, latents, tiling), frames));
  EXPECT_TRUE(matches(encode_clip(*vae, frames, tiling), encode_clip(*vae, frames)));
}

TEST(WanVae, refuses_tiles_that_are_no_multiple_of_the_stride) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21b());
  const VaeTiling tiling = {.is_enabled = true, .tile_px = 60, .stride_px = 48};
  EXPECT_THAT(
      [&] {
        decode_clip(*vae, fill_input(69, {4, 1, 9, 9}), tiling);
      },
      ThrowsMessage<ConfigError>(HasSubstr("multiples of 8 px")));
}

TEST(WanVae, names_the_shapes_it_refuses) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21b());
  EXPECT_THAT(
      [&] {
        decode_clip(*vae, at::zeros({16, 1, 2, 2}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("expected latents [4, F, H, W], got [16, 1, 2, 2]")));
  EXPECT_THAT(
      [&] {
        encode_clip(*vae, at::zeros({3, 1, 16, 20}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("multiples of 8, got 16 x 20")));
  EXPECT_THAT(
      [&] {
        encode_clip(*vae, at::zeros({4, 1, 16, 16}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("expected frames [3")));
  EXPECT_THAT([&] { encode_clip(*vae, at::zeros({3, 0, 16, 16})); }, ThrowsMessage<ShapeError>(HasSubstr("no frames")));
}

TEST(WanVae, a_wrong_shape_in_the_file_is_named) {
  const WanVaeConfig config = tiny_21b();
  std::vector<weights::TensorSpec> specs = wan_vae_parameters(config);
  const std::vector<weights::TensorSpec> expected = specs;
  for (weights::TensorSpec& spec : specs) {
    if (spec.name == "decoder.conv_in.weight") spec.shape[1] = 16;
  }
  EXPECT_THAT(
      [&] { weights::WeightStore::bind(test::fill_model(specs), expected, "vae"); },
      ThrowsMessage<WeightError>(HasSubstr("decoder.conv_in.weight: expected [16, 4, 3, 3, 3], found [16, 16")));
}

TEST(FirstFrameCondition, marks_first_and_last_frames) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21());
  const at::Tensor first = fill_input(70, {3, 16, 24}, 1.0), last = fill_input(71, {3, 16, 24}, 1.0);
  const at::Tensor condition = compute_first_frame_condition(*vae, {.first = first, .last = last}, 9);
  ASSERT_EQ(condition.sizes(), (std::vector<int64_t>{20, 3, 2, 3}));
  at::Tensor mask = at::zeros({4, 3, 2, 3});
  mask.select(1, 0).fill_(1);
  mask.select(0, 3).select(0, 2).fill_(1);
  EXPECT_TRUE(at::equal(condition.narrow(0, 0, 4), mask));
  at::Tensor clip = at::zeros({3, 9, 16, 24});
  clip.select(1, 0).copy_(first);
  clip.select(1, 8).copy_(last);
  EXPECT_TRUE(matches(condition.narrow(0, 4, 16), encode_clip(*vae, clip)));
}

TEST(FirstFrameCondition, refuses_a_frame_count_between_groups) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21());
  EXPECT_THAT(
      [&] {
        compute_first_frame_condition(*vae, {.first = at::zeros({3, 16, 16})}, 8);
      },
      ThrowsMessage<ShapeError>(HasSubstr("expected 4 k + 1 frames, got 8")));
  EXPECT_THAT(
      [&] {
        compute_first_frame_condition(*vae, {.first = at::zeros({3, 16, 16}), .last = at::zeros({3, 16, 24})}, 9);
      },
      ThrowsMessage<ShapeError>(HasSubstr("the last frame is [3, 16, 24]")));
}

}  // namespace
}  // namespace strobe::models
