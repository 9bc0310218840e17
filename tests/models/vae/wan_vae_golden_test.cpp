// The VAE rows of the specification's table of golden numbers.
#include "core/torch.h"
#include "models/vae/first_frame_condition.h"
#include "models/vae/wan_vae.h"
#include "tests/models/vae/tiny_vaes.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace strobe::models {
namespace {

using test::fill_input;
using test::matches_summary;

constexpr VaeTiling kTiles48 = {.is_enabled = true, .tile_px = 64, .stride_px = 48};
constexpr VaeTiling kTiles32 = {.is_enabled = true, .tile_px = 64, .stride_px = 32};

// The table is for latents as the decoder sees them; the configurations here have mean 0 and deviation 1.
at::Tensor encoded(const WanVaeConfig& config, uint32_t k, std::vector<int64_t> shape, const VaeTiling& tiling = {}) {
  return encode_clip(*make_tiny(config), fill_input(k, shape, 1.0), tiling);
}

at::Tensor decoded(const WanVaeConfig& config, uint32_t k, std::vector<int64_t> shape, const VaeTiling& tiling = {}) {
  return decode_clip(*make_tiny(config), fill_input(k, shape), tiling);
}

TEST(WanVaeGolden, wan21_tiny_encode) {
  EXPECT_TRUE(
      matches_summary(encoded(tiny_21(), 5, {3, 9, 16, 16}),
                      {-0.02241997,
                       0.27454979,
                       {0.0273601, 0.0997101, 0.1908536, -0.0701095, -0.0054444, 0.1812286, -0.3545631, -0.6891453}}));
}

TEST(WanVaeGolden, wan21_tiny_decode) {
  EXPECT_TRUE(matches_summary(decoded(tiny_21(), 6, {16, 3, 2, 2}), {0.14734042,
                                                                     0.47823210,
                                                                     {0.2072288, 0.3950814, 0.2334819, 0.1781469,
                                                                      0.7650973, 0.5786415, 0.2480332, 0.2616644}}));
}

TEST(WanVaeGolden, wan22_tiny_encode) {
  EXPECT_TRUE(matches_summary(encoded(tiny_22(), 7, {3, 9, 32, 48}), {-0.07826585,
                                                                      0.39412298,
                                                                      {0.1278570, -0.0709984, 0.1358153, -0.2491536,
                                                                       0.2681804, 0.0128919, -0.5404162, 0.5645267}}));
}

TEST(WanVaeGolden, wan22_tiny_decode) {
  EXPECT_TRUE(matches_summary(decoded(tiny_22(), 8, {8, 3, 2, 3}), {0.07851886,
                                                                    0.49117790,
                                                                    {-0.0638265, -0.0965127, 0.0791915, -0.2015883,
                                                                     -0.0581503, 1.0000000, 0.1098373, -0.5653701}}));
}

TEST(WanVaeGolden, wan21_b_encode) {
  EXPECT_TRUE(
      matches_summary(encoded(tiny_21b(), 9, {3, 13, 16, 24}),
                      {0.14095896,
                       0.32477482,
                       {-0.3503124, 0.5252829, 0.4032066, 0.1671851, 0.0220603, 0.2002567, -0.6259578, 0.0919521}}));
}

TEST(WanVaeGolden, wan21_b_decode) {
  EXPECT_TRUE(matches_summary(decoded(tiny_21b(), 10, {4, 4, 2, 3}), {0.03822868,
                                                                      0.39561513,
                                                                      {0.3794152, 0.2903752, 0.3745422, 0.4761379,
                                                                       -0.1886090, -0.3085089, 0.2345385, 0.2101973}}));
}

TEST(WanVaeGolden, wan21_b_tiled_decode) {
  EXPECT_TRUE(
      matches_summary(decoded(tiny_21b(), 11, {4, 2, 11, 14}, kTiles48),
                      {0.08144539,
                       0.37934469,
                       {-0.1224281, 0.1135354, 0.1259342, 0.1923420, -0.3871638, -0.0090643, 0.3231573, 0.0755769}}));
}

TEST(WanVaeGolden, wan21_b_untiled_decode_of_the_tiled_case) {
  EXPECT_TRUE(
      matches_summary(decoded(tiny_21b(), 11, {4, 2, 11, 14}),
                      {0.08569930,
                       0.39947233,
                       {-0.1906106, 0.1429282, 0.2968195, 0.0175629, -0.1867926, -0.1019721, 0.2095884, -0.1996177}}));
}

TEST(WanVaeGolden, wan21_b_tiled_encode) {
  EXPECT_TRUE(
      matches_summary(encoded(tiny_21b(), 12, {3, 5, 88, 112}, kTiles48),
                      {0.09357202,
                       0.31950191,
                       {0.4137639, 0.0675520, 0.2929710, 0.4772764, 0.1139310, -0.1239067, 0.4958479, 0.0989384}}));
}

TEST(WanVaeGolden, wan22_tiny_tiled_decode) {
  EXPECT_TRUE(
      matches_summary(decoded(tiny_22(), 13, {8, 2, 6, 7}, kTiles32),
                      {0.07371616,
                       0.46860172,
                       {-0.4287777, -0.0843419, -0.2820182, -0.5436826, 0.0665718, 0.6797431, 0.0491023, 0.3311296}}));
}

TEST(WanVaeGolden, wan22_tiny_tiled_encode) {
  EXPECT_TRUE(
      matches_summary(encoded(tiny_22(), 14, {3, 5, 160, 192}, kTiles32),
                      {-0.10030137,
                       0.41661258,
                       {0.0404452, -0.4361556, -0.1056843, -0.0790293, -0.4536934, 0.0407676, -0.3503152, 0.2097348}}));
}

// Not of the table: diffusers 0.37 in float32, filled by the same rule.
TEST(WanVaeGolden, patched_plain_encode) {
  EXPECT_TRUE(
      matches_summary(encoded(patched_plain(), 90, {3, 9, 16, 24}),
                      {0.06267323,
                       0.42795995,
                       {-0.0581520, 0.5374424, -0.0326064, -0.2983571, 0.1133788, 0.1653217, 0.6781005, -0.2680480}}));
}

TEST(WanVaeGolden, patched_plain_decode) {
  EXPECT_TRUE(
      matches_summary(decoded(patched_plain(), 91, {16, 3, 2, 3}),
                      {0.04157894,
                       0.42519280,
                       {0.1552690, -0.1700217, 0.2651612, -0.0181957, -0.2563945, 0.9451296, 0.0640000, 0.1403970}}));
}

TEST(WanVaeGolden, first_frame_condition_of_nine_frames) {
  const std::unique_ptr<Vae> vae = make_tiny(tiny_21_normalised());
  const at::Tensor image = fill_input(42, {3, 16, 16}, 1.0);
  EXPECT_TRUE(matches_summary(compute_first_frame_condition(*vae, {.first = image}, 9),
                              {0.10379635, 0.45454376, {1, 1, 1, 1, 0.4327536, -0.0163079, -0.1212944, 0.0378655}}));
}

}  // namespace
}  // namespace strobe::models
