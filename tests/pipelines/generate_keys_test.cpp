#include "pipelines/generate_keys.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "config/compose.h"
#include "config/explain.h"
#include "config/yaml_loader.h"
#include "pipelines/request.h"
#include "tests/support/temp_folder.h"

namespace strobe::pipelines {
namespace {

Request request_of(const std::string& text) {
  const config::KeyTable& table = generate_keys();
  return to_request(table.with_defaults(table.checked(config::parse_yaml(text, "run.yaml"))));
}

std::string refusal(const std::string& text) {
  return test::message_of<ConfigError>([&] { request_of(text); });
}

TEST(GenerateKeys, declare_names_and_flags_once) {
  std::set<std::string> names, flags;
  for (const config::KeySpec& key : generate_keys().keys()) {
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
    EXPECT_FALSE(key.sentence.empty()) << key.name;
    EXPECT_FALSE(key.group.empty()) << key.name;
    const std::string flag = config::long_flag(key);
    EXPECT_TRUE(flags.insert(flag).second) << flag;
    EXPECT_EQ(generate_keys().find_alias(flag), &key) << flag;
    for (const std::string& axis : key.axes) EXPECT_NE(generate_keys().find(axis), nullptr) << axis;
  }
}

TEST(GenerateKeys, have_the_defaults_of_a_request) {
  const Request r = to_request(config::compose(generate_keys(), {})), plain;
  EXPECT_EQ(r.prompt, "");
  EXPECT_FALSE(r.negative_prompt || r.num_frames || r.height || r.width || r.fps || r.num_inference_steps);
  EXPECT_FALSE(r.guidance_scale || r.guidance_scale_2 || r.flow_shift || r.scheduler);
  EXPECT_EQ(r.sigma_spacing, plain.sigma_spacing);
  EXPECT_EQ(r.seed, plain.seed);
  EXPECT_EQ(r.guider, plain.guider);
  EXPECT_EQ(r.attention, std::vector<std::string>{"dense"});
  EXPECT_EQ(r.attention_backend, plain.attention_backend);
  EXPECT_FALSE(r.is_strict || r.uses_vae_tiling || r.is_lossless || r.may_overwrite);
  EXPECT_TRUE(r.output.empty() && r.init_latents.empty() && r.save_latents.empty() && r.save_frames.empty());
  EXPECT_TRUE(r.codec.empty() && r.pix_fmt.empty());
  EXPECT_EQ(r.crf, plain.crf);
}

TEST(GenerateKeys, carry_every_kind_of_value_into_a_request) {
  const Request r = request_of(
      "prompt: a cat\nnegative_prompt: ''\nsize: [81, 480, 832]\nfps: 24\nnum_inference_steps: 20\nguidance_scale: 5\n"
      "guidance_scale_2: 3.5\nflow_shift: 8.0\nscheduler: euler\nsigma_spacing: unipc-old\nseed: 9223372036854775807\n"
      "attention: radial\nattention_backend: cpu\nstrict: true\nvae_tiling: true\noutput: a.mp4\ninit_latents: b\n"
      "save_latents: c\nsave_frames: d\ncodec: ffv1\npix_fmt: yuv444p\ncrf: 0\nlossless: true\noverwrite: true\n");
  EXPECT_EQ(r.prompt, "a cat");
  ASSERT_TRUE(r.negative_prompt);
  EXPECT_EQ(*r.negative_prompt, "");
  EXPECT_EQ(r.num_frames, 81);
  EXPECT_EQ(r.height, 480);
  EXPECT_EQ(r.width, 832);
  EXPECT_EQ(r.fps, 24);
  EXPECT_EQ(r.num_inference_steps, 20);
  EXPECT_EQ(r.guidance_scale, 5);
  EXPECT_EQ(r.guidance_scale_2, 3.5);
  EXPECT_EQ(r.flow_shift, 8);
  EXPECT_EQ(r.scheduler, "euler");
  EXPECT_EQ(r.sigma_spacing, "unipc-old");
  EXPECT_EQ(r.seed, uint64_t{9223372036854775807});
  EXPECT_EQ(r.attention, std::vector<std::string>{"radial"});
  EXPECT_EQ(r.attention_backend, "cpu");
  EXPECT_TRUE(r.is_strict && r.uses_vae_tiling && r.is_lossless && r.may_overwrite);
  EXPECT_EQ(r.output, "a.mp4");
  EXPECT_EQ(r.init_latents, "b");
  EXPECT_EQ(r.save_latents, "c");
  EXPECT_EQ(r.save_frames, "d");
  EXPECT_EQ(r.codec, "ffv1");
  EXPECT_EQ(r.pix_fmt, "yuv444p");
  EXPECT_EQ(r.crf, 0);
}

TEST(GenerateKeys, refuse_what_fits_no_request) {
  EXPECT_EQ(refusal("prompt: [a, b]\n"), "run.yaml:1:9: prompt: expected one prompt for one clip, got 2");
  EXPECT_EQ(refusal("seed: -1\n"), "run.yaml:1:7: seed: a seed must be drawn first");
  for (const char* text : {"seed: -2", "num_inference_steps: 0", "num_inference_steps: 1001", "flow_shift: 0", "fps: 0",
                           "guidance_scale: .nan", "scheduler: eulr", "sigma_spacing: x", "dtype: fp64", "crf: -1",
                           "height: 0", "width: 99999999999", "strict: 1", "prompt: 3", "promt: x", "size: 832"}) {
    EXPECT_TRUE(refusal(text).starts_with("run.yaml:1:")) << text << " -> " << refusal(text);
  }
}

TEST(GenerateKeys, are_all_explained) {
  const ConfigNode schema = config::json_schema(generate_keys(), "generate");
  const std::string text = config::explain_all(generate_keys());
  for (const std::string& name : generate_keys().names()) {
    EXPECT_NE(schema.at("properties").find(name), nullptr) << name;
    EXPECT_NE(text.find(name + ": "), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace strobe::pipelines
