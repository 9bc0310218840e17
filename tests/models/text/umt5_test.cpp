#include "core/torch.h"

#include "models/text/umt5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "core/error.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

using ::testing::HasSubstr;
using weights::WeightStore;

Umt5Config tiny_config() {
  Umt5Config config;
  config.vocab_size = 64;
  config.d_model = 32;
  config.d_kv = 8;
  config.d_ff = 40;
  config.num_heads = 3;
  config.num_layers = 2;
  return config;
}

WeightStore tiny_store() {
  const auto specs = umt5_parameters(tiny_config());
  return WeightStore::bind(test::fill_model(specs), specs, "text encoder");
}

at::Tensor encode_tiny(const std::vector<int32_t>& ids, at::ScalarType dtype = at::kFloat) {
  return make_umt5(tiny_config(), tiny_store(), dtype, at::kCPU)->encode(ids);
}

const std::vector<int32_t> kSixIds = {5, 17, 33, 2, 60, 1};

// The tiny model's tensors under other names.
std::shared_ptr<const weights::TensorSource> renamed(const std::map<std::string, std::string>& names) {
  const auto source = test::fill_model(umt5_parameters(tiny_config()));
  std::map<std::string, at::Tensor> tensors;
  for (const weights::TensorInfo& info : source->tensors()) {
    const auto found = names.find(info.name);
    tensors[found == names.end() ? info.name : found->second] = source->read(info.name);
  }
  return weights::make_memory_source(std::move(tensors));
}

at::Tensor encode_source(const std::shared_ptr<const weights::TensorSource>& source) {
  const auto specs = umt5_parameters(tiny_config());
  auto store = WeightStore::bind(source, specs, "text encoder", umt5_rename(*source));
  return make_umt5(tiny_config(), std::move(store), at::kFloat, at::kCPU)->encode(kSixIds);
}

std::string config_error(const std::string& json) {
  try {
    Umt5Config::from_json(weights::parse_json(json, "config.json"));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string config_json(const std::string& more) {
  return "{\"vocab_size\": 64, \"d_model\": 32, \"d_kv\": 8, \"d_ff\": 40, \"num_heads\": 3, \"num_layers\": 2, " +
         more + "}";
}

TEST(Umt5, equals_the_golden_of_six_tokens_padded_to_sixteen) {
  const at::Tensor states = encode_tiny(kSixIds);
  ASSERT_EQ(states.sizes(), (std::vector<int64_t>{6, 32}));
  const at::Tensor padded = at::cat({states, at::zeros({10, 32})}).unsqueeze(0);
  EXPECT_TRUE(test::matches_summary(
      padded, {-0.01826645, 0.61415143, {-1.2841629, 2.2089059, 1.1392456, -0.2586385, 1.9820445, 0, 0, 0}}));
}

TEST(Umt5, equals_the_golden_of_two_hundred_tokens) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 200; ++i) ids.push_back(i % 63 + 1);
  EXPECT_TRUE(test::matches_summary(
      encode_tiny(ids), {-0.00762767,
                         1.00908956,
                         {-0.3632695, 2.1072609, 1.5885293, 0.3790620, 0.1433941, 0.2436633, 2.0566883, -1.5270617}}));
}

TEST(Umt5, equals_the_reference_checkpoint_stage_by_stage) {
  const std::string folder = test::golden_path("wan_a/checkpoint/text_encoder");
  const Umt5Config config = Umt5Config::from_json(weights::load_json(folder + "/config.json"));
  const auto source = weights::open_weights(folder);
  const auto reference = weights::open_safetensors(test::golden_path("wan_a/reference.safetensors"));
  const auto stages = weights::open_safetensors(test::golden_path("wan_a/bisect.safetensors"));
  std::map<std::string, at::Tensor> seen;
  const auto encoder = make_umt5(
      config, WeightStore::bind(source, umt5_parameters(config), "text encoder", umt5_rename(*source)), at::kFloat,
      at::kCPU, [&](const std::string& name, const at::Tensor& value) { seen[name] = value.clone(); });
  EXPECT_EQ(encoder->width(), 48);
  for (const std::string prompt : {"neg", "p1", "p0"}) {
    const at::Tensor padded_ids = reference->read(prompt + ".token_ids");
    const int64_t length = padded_ids.ne(0).sum().item<int64_t>();
    const int32_t* first = padded_ids.data_ptr<int32_t>();
    const at::Tensor states = encoder->encode(std::vector<int32_t>(first, first + length));
    const at::Tensor expected = reference->read(prompt + ".prompt_embeds");
    EXPECT_TRUE(test::matches(states, expected.slice(0, 0, length))) << prompt;
    EXPECT_EQ(expected.slice(0, length).abs().max().item<float>(), 0.0F);
  }
  for (const std::string stage : {"text.embed", "text.block0.out", "text.block1.out"})
    EXPECT_TRUE(test::matches(seen[stage], stages->read(stage).squeeze(0))) << stage;
}

TEST(Umt5, can_be_stopped_before_each_of_its_blocks) {
  int calls = 0;
  const auto encoder = make_umt5(tiny_config(), tiny_store(), at::kFloat, at::kCPU);
  const at::Tensor whole = encoder->encode(kSixIds, [&] { ++calls; });
  EXPECT_EQ(calls, tiny_config().num_layers);
  for (int last = 1; last <= tiny_config().num_layers; ++last) {
    calls = 0;
    const auto stop = [&] {
      if (++calls == last) throw InterruptedError("interrupted");
    };
    EXPECT_THROW(encoder->encode(kSixIds, stop), InterruptedError);
    EXPECT_EQ(calls, last);
  }
  EXPECT_TRUE(at::equal(encoder->encode(kSixIds), whole));  // it can go on afterwards
}

TEST(Umt5, puts_distances_into_the_buckets_of_the_table) {
  const std::pair<int64_t, int64_t> firsts[] = {{8, 8},   {12, 9},  {16, 10}, {23, 11},
                                                {32, 12}, {46, 13}, {64, 14}, {91, 15}};
  for (int64_t distance = 0; distance < 300; ++distance) {
    int64_t expected = distance;
    for (const auto& [first, bucket] : firsts)
      if (distance >= first) expected = bucket;
    EXPECT_EQ(relative_bucket(-distance, 32, 128), expected) << distance;
    if (distance > 0) {
      EXPECT_EQ(relative_bucket(distance, 32, 128), 16 + expected) << distance;
    }
  }
}

TEST(Umt5, stays_close_in_half_precision) {
  const at::Tensor exact = encode_tiny(kSixIds);
  const at::Tensor bf16 = encode_tiny(kSixIds, at::kBFloat16);
  EXPECT_EQ(bf16.scalar_type(), at::kFloat);
  EXPECT_LT(test::relative_l2(bf16, exact), 2e-2);
  EXPECT_LT(test::relative_l2(encode_tiny(kSixIds, at::kHalf), exact), 4e-3);
}

TEST(Umt5, gives_the_same_twice) { EXPECT_TRUE(at::equal(encode_tiny(kSixIds), encode_tiny(kSixIds))); }

TEST(Umt5, reads_either_name_of_the_embedding_and_skips_what_it_does_not_need) {
  const at::Tensor expected = encode_tiny(kSixIds);
  EXPECT_TRUE(at::equal(encode_source(renamed({{"shared.weight", "encoder.embed_tokens.weight"}})), expected));

  const auto source = test::fill_model(umt5_parameters(tiny_config()));
  std::map<std::string, at::Tensor> tensors;
  for (const weights::TensorInfo& info : source->tensors()) tensors[info.name] = source->read(info.name);
  tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"];
  tensors["decoder.block.0.layer.0.layer_norm.weight"] = at::ones({32});
  tensors["lm_head.weight"] = at::ones({64, 32});
  tensors["spiece_model"] = at::zeros({9}, at::kByte);
  EXPECT_TRUE(at::equal(encode_source(weights::make_memory_source(std::move(tensors))), expected));
}

TEST(Umt5, reads_the_names_of_the_original_repository) {
  std::map<std::string, std::string> names = {{"shared.weight", "token_embedding.weight"},
                                              {"encoder.final_layer_norm.weight", "norm.weight"}};
  const std::pair<const char*, const char*> rests[] = {
      {"layer.0.layer_norm.weight", "norm1.weight"},
      {"layer.0.SelfAttention.q.weight", "attn.q.weight"},
      {"layer.0.SelfAttention.k.weight", "attn.k.weight"},
      {"layer.0.SelfAttention.v.weight", "attn.v.weight"},
      {"layer.0.SelfAttention.o.weight", "attn.o.weight"},
      {"layer.0.SelfAttention.relative_attention_bias.weight", "pos_embedding.embedding.weight"},
      {"layer.1.layer_norm.weight", "norm2.weight"},
      {"layer.1.DenseReluDense.wi_0.weight", "ffn.gate.0.weight"},
      {"layer.1.DenseReluDense.wi_1.weight", "ffn.fc1.weight"},
      {"layer.1.DenseReluDense.wo.weight", "ffn.fc2.weight"}};
  for (const std::string block : {"0", "1"})
    for (const auto& [ours, original] : rests)
      names["encoder.block." + block + "." + ours] = "blocks." + block + "." + original;
  EXPECT_TRUE(at::equal(encode_source(renamed(names)), encode_tiny(kSixIds)));
}

TEST(Umt5, names_a_missing_tensor) {
  const auto source = renamed({{"encoder.block.1.layer.0.SelfAttention.k.weight", "something.else"}});
  try {
    encode_source(source);
    FAIL();
  } catch (const WeightError& error) {
    EXPECT_THAT(error.what(), HasSubstr("encoder.block.1.layer.0.SelfAttention.k.weight"));
    EXPECT_THAT(error.what(), HasSubstr("something.else"));
  }
}

TEST(Umt5, has_one_bias_for_all_blocks_when_the_config_says_t5) {
  const Umt5Config config = Umt5Config::from_json(
      weights::parse_json(config_json(R"("model_type": "t5", "feed_forward_proj": "gated-gelu")"), "c"));
  EXPECT_FALSE(config.bias_in_every_block);
  const auto specs = umt5_parameters(config);
  EXPECT_EQ(specs.size() + 1, umt5_parameters(tiny_config()).size());
  const auto encoder = make_umt5(config, WeightStore::bind(test::fill_model(specs), specs, "t5"), at::kFloat, at::kCPU);
  EXPECT_EQ(encoder->encode(kSixIds).size(0), 6);
}

TEST(Umt5, refuses_ids_outside_the_vocabulary) {
  EXPECT_THROW(encode_tiny({5, 64}), ShapeError);
  EXPECT_THROW(encode_tiny({-1}), ShapeError);
  EXPECT_THROW(encode_tiny({}), ShapeError);
  EXPECT_THROW(make_umt5(tiny_config(), tiny_store(), at::kLong, at::kCPU), ShapeError);
}

TEST(Umt5, says_which_key_of_the_config_it_cannot_follow) {
  EXPECT_EQ(config_error(config_json(R"("feed_forward_proj": "gated-gelu")")), "no error");
  EXPECT_THAT(config_error(config_json(R"("feed_forward_proj": "relu")")), HasSubstr("feed_forward_proj"));
  EXPECT_THAT(config_error(config_json(R"("model_type": "bert", "feed_forward_proj": "gated-gelu")")),
              HasSubstr("bert"));
  EXPECT_THAT(config_error(config_json(R"("dense_act_fn": "silu", "feed_forward_proj": "gated-gelu")")),
              HasSubstr("dense_act_fn"));
  EXPECT_THAT(config_error(config_json(R"("relative_attention_num_buckets": 7, "feed_forward_proj": "gated-gelu")")),
              HasSubstr("relative_attention_num_buckets"));
  EXPECT_THAT(config_error(R"({"vocab_size": 0, "d_model": 32})"), HasSubstr("vocab_size"));
  EXPECT_THAT(config_error(R"({"vocab_size": 64})"), HasSubstr("d_model"));
}

}  // namespace
}  // namespace strobe::models
