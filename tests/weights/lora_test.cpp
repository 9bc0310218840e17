// LoRA files against the published formulas, written out here element by element in float64.
#include "weights/lora.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::weights {
namespace {

using test::fill_input;
using test::matches;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Tensors = std::map<std::string, at::Tensor>;

at::Tensor alpha_of(double value) { return at::scalar_tensor(value, at::kFloat); }

// A layer q [8, 6] with a bias, a layer k [5, 6] without one, a convolution c and a free parameter.
Tensors base_model() {
  return {{"q.weight", fill_input(0, {8, 6})},
          {"q.bias", fill_input(1, {8})},
          {"k.weight", fill_input(2, {5, 6})},
          {"c.weight", fill_input(3, {4, 3, 1, 2, 2})},
          {"table", fill_input(4, {1, 6, 3})}};
}

Tensors lora_of_q() {
  return {{"q.lora_A.weight", fill_input(10, {2, 6})}, {"q.lora_B.weight", fill_input(11, {8, 2})}};
}

Tensors with(Tensors first, const Tensors& second) {
  for (const auto& [name, tensor] : second) first.insert_or_assign(name, tensor);
  return first;
}

std::shared_ptr<const LoraFile> file_of(const Tensors& tensors, const std::map<std::string, std::string>& header = {}) {
  return std::make_shared<LoraFile>(make_memory_source(tensors, header), "lora.safetensors");
}

struct Merged {
  Tensors tensors;
  std::vector<LoraUse> uses;
};

// The model's tensors after the files were merged into them, in float32 unless told otherwise. The module `other` is
// unknown to the model.
Merged merge(const std::vector<std::pair<std::shared_ptr<const LoraFile>, double>>& files,
             const Tensors& model = base_model(), at::ScalarType dtype = at::kFloat) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : model) specs.push_back({name, tensor.sizes().vec()});
  const auto naming = [](std::string_view module) -> LoraTarget {
    if (module == "other") return {.kind = LoraTarget::Kind::kUnknown};
    return {.kind = LoraTarget::Kind::kModule, .module = std::string(module)};
  };
  Merged out;
  auto patches = std::make_shared<WeightPatches>();
  for (const auto& [file, weight] : files) {
    LoraMatch match(file, weight);
    match.add(0, specs, naming, *patches);
    for (LoraUse& use : match.finish()) out.uses.push_back(std::move(use));
  }
  WeightStore store = WeightStore::bind(make_memory_source(model), specs, "transformer");
  store.set_patches(patches);
  for (const auto& [name, tensor] : model) out.tensors[name] = store.load(name, dtype);
  if (store.contains("k.bias")) out.tensors["k.bias"] = store.load("k.bias", dtype);
  return out;
}

Tensors merge(const Tensors& lora, double weight = 1) { return merge({{file_of(lora), weight}}).tensors; }

std::string refusal(const Tensors& lora, const std::map<std::string, std::string>& header = {}) {
  return test::message_of<WeightError>([&] { merge({{file_of(lora, header), 1}}); });
}

at::Tensor product_of(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::zeros({a.size(0), b.size(1)}, at::kDouble);
  for (int64_t o = 0; o < a.size(0); ++o) {
    for (int64_t i = 0; i < b.size(1); ++i) {
      for (int64_t r = 0; r < a.size(1); ++r) out[o][i] += a[o][r].item<double>() * b[r][i].item<double>();
    }
  }
  return out;
}

at::Tensor kronecker(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::zeros({a.size(0) * b.size(0), a.size(1) * b.size(1)}, at::kDouble);
  for (int64_t o = 0; o < out.size(0); ++o) {
    for (int64_t i = 0; i < out.size(1); ++i) {
      out[o][i] = a[o / b.size(0)][i / b.size(1)].item<double>() * b[o % b.size(0)][i % b.size(1)].item<double>();
    }
  }
  return out;
}

::testing::AssertionResult changed_by(const Tensors& merged, const std::string& name, const at::Tensor& delta) {
  const at::Tensor base = base_model().at(name);
  return matches(merged.at(name), (base.to(at::kDouble) + delta.reshape(base.sizes())).to(at::kFloat),
                 {.relative_l2 = 1e-6});
}

TEST(LoraKey, ends_in_the_longest_suffix_that_fits) {
  const std::vector<std::tuple<std::string, std::string, LoraRole>> cases = {
      {"a.q.lora_A.weight", "a.q", LoraRole::kA},
      {"a.q.lora_down.weight", "a.q", LoraRole::kA},
      {"a.q.lora.down.weight", "a.q", LoraRole::kA},
      {"a.processor.to_q_lora.down.weight", "a.processor.to_q", LoraRole::kA},
      {"a.q.lora_A.default.weight", "a.q", LoraRole::kA},
      {"a.q.lora_A", "a.q", LoraRole::kA},
      {"a.q.lora_up.weight", "a.q", LoraRole::kB},
      {"a.q.lora_B.default.weight", "a.q", LoraRole::kB},
      {"a.q.lora_B.bias", "a.q", LoraRole::kBBias},
      {"a.q.diff_b", "a.q", LoraRole::kDiffBias},
      {"a.q.lora_magnitude_vector.default.weight", "a.q", LoraRole::kMagnitude},
      {"a.q.lokr_w1_a", "a.q", LoraRole::kLokrW1A}};
  for (const auto& [key, module, role] : cases) {
    const auto parsed = parse_lora_key(key);
    ASSERT_TRUE(parsed) << key;
    EXPECT_EQ(parsed->module, module);
    EXPECT_EQ(parsed->role, role) << key;
  }
  EXPECT_FALSE(parse_lora_key("a.q.weight"));
  EXPECT_FALSE(parse_lora_key(".alpha"));
}

TEST(Lora, adds_strength_times_alpha_over_rank_times_the_product) {
  const Tensors lora = with(lora_of_q(), {{"q.alpha", alpha_of(1)}}), model = base_model();
  const at::Tensor x = fill_input(20, {3, 6});
  for (double strength : {1.0, 0.7, -2.0}) {
    const Tensors merged = merge(lora, strength);
    const at::Tensor low = at::matmul(x, lora.at("q.lora_A.weight").t());
    const at::Tensor expected = at::linear(x, model.at("q.weight"), model.at("q.bias")) +
                                0.5 * strength * at::matmul(low, lora.at("q.lora_B.weight").t());
    EXPECT_TRUE(matches(at::linear(x, merged.at("q.weight"), merged.at("q.bias")), expected, {.relative_l2 = 1e-6}));
    EXPECT_TRUE(at::equal(merged.at("k.weight"), model.at("k.weight")));
    EXPECT_TRUE(at::equal(merged.at("q.bias"), model.at("q.bias")));
  }
}

TEST(Lora, counts_as_scale_one_without_alpha) {
  const Tensors lora = lora_of_q();
  EXPECT_TRUE(changed_by(merge(lora), "q.weight", product_of(lora.at("q.lora_B.weight"), lora.at("q.lora_A.weight"))));
}

TEST(Lora, reads_alpha_as_bf16_and_as_one_element_beside_factors_of_other_dtypes) {
  Tensors lora = with(lora_of_q(), {{"q.alpha", at::full({1}, 3.0, at::kBFloat16)}});
  lora["q.lora_A.weight"] = lora["q.lora_A.weight"].to(at::kHalf);
  lora["q.lora_B.weight"] = lora["q.lora_B.weight"].to(at::kBFloat16);
  EXPECT_TRUE(
      changed_by(merge(lora), "q.weight", 1.5 * product_of(lora.at("q.lora_B.weight"), lora.at("q.lora_A.weight"))));
}

TEST(Lora, takes_the_rank_of_each_module_from_its_matrices) {
  const Tensors lora = with(lora_of_q(), {{"q.alpha", alpha_of(4)},
                                          {"k.alpha", alpha_of(4)},
                                          {"k.lora_A.weight", fill_input(12, {4, 6})},
                                          {"k.lora_B.weight", fill_input(13, {5, 4})}});
  const Merged merged = merge({{file_of(lora), 1}});
  EXPECT_TRUE(
      changed_by(merged.tensors, "q.weight", 2.0 * product_of(lora.at("q.lora_B.weight"), lora.at("q.lora_A.weight"))));
  EXPECT_TRUE(
      changed_by(merged.tensors, "k.weight", product_of(lora.at("k.lora_B.weight"), lora.at("k.lora_A.weight"))));
  ASSERT_EQ(merged.uses.size(), 1U);
  EXPECT_EQ(merged.uses[0].modules, 2);
  EXPECT_EQ(merged.uses[0].min_rank, 2);
  EXPECT_EQ(merged.uses[0].max_rank, 4);
  EXPECT_EQ(merged.uses[0].min_scale, 1);
  EXPECT_EQ(merged.uses[0].max_scale, 2);
}

TEST(Lora, leaves_the_bits_alone_where_it_changes_nothing) {
  Tensors model = base_model();
  model["q.weight"] = at::cat({at::full({1, 6}, -0.0F), model["q.weight"].narrow(0, 1, 7)}).to(at::kBFloat16);
  Tensors zero = lora_of_q();
  zero["q.lora_B.weight"].zero_();
  zero["q.diff_b"] = at::zeros({8});
  for (const auto& [lora, strength] : {std::pair(zero, 1.0), std::pair(lora_of_q(), 0.0)}) {
    const at::Tensor merged = merge({{file_of(lora), strength}}, model, at::kBFloat16).tensors.at("q.weight");
    EXPECT_TRUE(at::equal(merged.view(at::kShort), model["q.weight"].view(at::kShort)));
  }
}

TEST(Lora, rounds_a_sum_of_files_to_bf16_once) {
  Tensors model = base_model();
  model["q.weight"] = model["q.weight"].to(at::kBFloat16);
  const Tensors small = {{"q.diff", at::full({8, 6}, 0x1p-9)}};
  const std::pair<std::shared_ptr<const LoraFile>, double> one(file_of(small), 1);
  const at::Tensor merged = merge({one, one, one, one}, model, at::kBFloat16).tensors.at("q.weight");
  EXPECT_TRUE(at::equal(merged, (model["q.weight"].to(at::kFloat) + 0x1p-7).to(at::kBFloat16)));
}

TEST(Lora, adds_full_changes_without_alpha_and_creates_a_missing_bias) {
  const Tensors lora = {
      {"q.diff", fill_input(12, {8, 6})},    {"q.diff_b", fill_input(13, {8})}, {"q.alpha", alpha_of(8)},
      {"k.diff", fill_input(14, {5, 6})},    {"k.diff_b", fill_input(15, {5})}, {"table.diff", fill_input(16, {6, 3})},
      {"c.diff", fill_input(17, {4, 3 * 4})}};
  const Tensors merged = merge(lora, 0.5);
  EXPECT_TRUE(changed_by(merged, "q.weight", 0.5 * lora.at("q.diff")));
  EXPECT_TRUE(changed_by(merged, "q.bias", 0.5 * lora.at("q.diff_b")));
  EXPECT_TRUE(changed_by(merged, "k.weight", 0.5 * lora.at("k.diff")));
  EXPECT_TRUE(changed_by(merged, "table", 0.5 * lora.at("table.diff")));
  EXPECT_TRUE(changed_by(merged, "c.weight", 0.5 * lora.at("c.diff")));
  EXPECT_TRUE(at::equal(merged.at("k.bias"), 0.5 * lora.at("k.diff_b")));
}

TEST(Lora, scales_the_bias_of_the_up_projection_like_the_product) {
  const Tensors lora = with(lora_of_q(), {{"q.lora_B.bias", fill_input(12, {8})}, {"q.alpha", alpha_of(1)}});
  EXPECT_TRUE(changed_by(merge(lora, 3), "q.bias", 1.5 * lora.at("q.lora_B.bias")));
}

TEST(Lora, replaces_a_weight_before_it_adds_to_it) {
  const Tensors lora = {{"q.set_weight", fill_input(12, {8, 6})}, {"q.diff", fill_input(13, {8, 6})}};
  EXPECT_TRUE(at::equal(merge(lora).at("q.weight"), lora.at("q.set_weight") + lora.at("q.diff")));
  EXPECT_TRUE(changed_by(merge({{"q.set_weight", lora.at("q.set_weight")}}, 0.25), "q.weight",
                         0.25 * (lora.at("q.set_weight") - base_model().at("q.weight"))));
}

TEST(Lora, changes_convolutions_by_kernels_flattened_matrices_and_a_middle) {
  const at::Tensor a = fill_input(12, {2, 3, 1, 2, 2}), b = fill_input(13, {4, 2, 1, 1, 1});
  const at::Tensor expected = product_of(b.reshape({4, 2}), a.reshape({2, 12}));
  EXPECT_TRUE(changed_by(merge({{"c.lora_down.weight", a}, {"c.lora_up.weight", b}}), "c.weight", expected));
  EXPECT_TRUE(changed_by(merge({{"c.lora_down.weight", a.reshape({2, 12})}, {"c.lora_up.weight", b.reshape({4, 2})}}),
                         "c.weight", expected));

  const at::Tensor narrow = fill_input(14, {2, 3, 1, 1, 1}), middle = fill_input(15, {2, 2, 1, 2, 2});
  at::Tensor delta = at::zeros({4, 3, 4}, at::kDouble);
  for (int64_t k = 0; k < 4; ++k) {
    const at::Tensor at_k = middle.reshape({2, 2, 4}).select(2, k);
    delta.select(2, k).copy_(product_of(product_of(b.reshape({4, 2}), at_k), narrow.reshape({2, 3})));
  }
  const Tensors cp = {
      {"c.lora_down.weight", narrow}, {"c.lora_mid.weight", middle}, {"c.lora_up.weight", b}, {"c.alpha", alpha_of(1)}};
  EXPECT_TRUE(changed_by(merge(cp), "c.weight", 0.5 * delta));
}

TEST(Lora, brings_the_rows_of_a_dora_to_their_lengths_after_all_else_was_added) {
  const at::Tensor magnitude = fill_input(12, {8}).abs() + 1, diff = fill_input(13, {8, 6});
  const at::Tensor w = base_model().at("q.weight").to(at::kDouble);
  const Tensors lora = with(lora_of_q(), {{"q.alpha", alpha_of(1)}});
  const at::Tensor half = 0.5 * product_of(lora.at("q.lora_B.weight"), lora.at("q.lora_A.weight"));
  for (double strength : {1.0, 0.3}) {
    at::Tensor expected = at::empty({8, 6}, at::kDouble);
    for (int64_t o = 0; o < 8; ++o) {
      const at::Tensor v = w[o] + half[o];
      expected[o] = strength * (magnitude[o].item<double>() * v / v.norm() - w[o]);
    }
    EXPECT_TRUE(
        changed_by(merge(with(lora, {{"q.dora_scale", magnitude.view({8, 1})}}), strength), "q.weight", expected));
    EXPECT_TRUE(
        changed_by(merge(with(lora, {{"q.lora_magnitude_vector", magnitude}}), strength), "q.weight", expected));
  }
  const Tensors both = merge(with(lora, {{"q.dora_scale", magnitude}, {"q.diff", diff}}));
  EXPECT_TRUE(matches(both.at("q.weight").square().sum(1).sqrt(), magnitude, {.relative_l2 = 1e-6}));
}

TEST(Lora, brings_the_columns_of_a_dora_to_their_lengths) {
  const at::Tensor magnitude = fill_input(12, {1, 6}).abs() + 1;
  const Tensors lora = with(lora_of_q(), {{"q.dora_scale", magnitude}});
  const at::Tensor w = base_model().at("q.weight").to(at::kDouble);
  const at::Tensor v = w + product_of(lora.at("q.lora_B.weight"), lora.at("q.lora_A.weight"));
  at::Tensor expected = at::empty({8, 6}, at::kDouble);
  for (int64_t i = 0; i < 6; ++i) {
    expected.select(1, i).copy_(magnitude[0][i].item<double>() * v.select(1, i) / v.select(1, i).norm());
  }
  EXPECT_TRUE(changed_by(merge(lora), "q.weight", expected - w));
}

TEST(Lora, multiplies_the_two_products_of_a_loha_element_by_element) {
  const Tensors lora = {{"q.hada_w1_a", fill_input(12, {8, 2})},
                        {"q.hada_w1_b", fill_input(13, {2, 6})},
                        {"q.hada_w2_a", fill_input(14, {8, 2})},
                        {"q.hada_w2_b", fill_input(15, {2, 6})},
                        {"q.alpha", alpha_of(1)}};
  const at::Tensor first = product_of(lora.at("q.hada_w1_a"), lora.at("q.hada_w1_b"));
  const at::Tensor second = product_of(lora.at("q.hada_w2_a"), lora.at("q.hada_w2_b"));
  EXPECT_TRUE(changed_by(merge(lora), "q.weight", 0.5 * first * second));
}

TEST(Lora, takes_the_kronecker_product_of_a_lokr_whole_or_split) {
  const at::Tensor w1 = fill_input(12, {2, 3}), w2 = fill_input(13, {4, 2});
  const at::Tensor a = fill_input(14, {4, 1}), b = fill_input(15, {1, 2});
  // Neither factor is split: alpha has no rank and does not count.
  EXPECT_TRUE(changed_by(merge({{"q.lokr_w1", w1}, {"q.lokr_w2", w2}, {"q.alpha", alpha_of(7)}}), "q.weight",
                         kronecker(w1, w2)));
  EXPECT_TRUE(changed_by(merge({{"q.lokr_w1", w1}, {"q.lokr_w2_a", a}, {"q.lokr_w2_b", b}, {"q.alpha", alpha_of(0.5)}}),
                         "q.weight", 0.5 * kronecker(w1, product_of(a, b))));
  const at::Tensor c = fill_input(16, {2, 2}), d = fill_input(17, {2, 3});
  EXPECT_TRUE(changed_by(merge({{"q.lokr_w1_a", c}, {"q.lokr_w1_b", d}, {"q.lokr_w2", w2}, {"q.alpha", alpha_of(1)}}),
                         "q.weight", 0.5 * kronecker(product_of(c, d), w2)));
}

// The kernel of a Tucker form: for every place k of the core, a^T t[:, :, k] b.
at::Tensor tucker(const at::Tensor& t, const at::Tensor& a, const at::Tensor& b) {
  std::vector<at::Tensor> places;
  for (const at::Tensor& core : t.flatten(2).unbind(2)) places.push_back(product_of(product_of(a.t(), core), b));
  return at::stack(places, 2);
}

TEST(Lora, changes_convolutions_by_loha_and_lokr_with_a_core) {
  Tensors loha = {{"c.alpha", alpha_of(1)}};
  uint32_t k = 12;
  for (std::string pair : {"1", "2"}) {
    loha["c.hada_t" + pair] = fill_input(k++, {2, 2, 1, 2, 2});
    loha["c.hada_w" + pair + "_a"] = fill_input(k++, {2, 4});
    loha["c.hada_w" + pair + "_b"] = fill_input(k++, {2, 3});
  }
  EXPECT_TRUE(changed_by(merge(loha), "c.weight",
                         0.5 * tucker(loha["c.hada_t1"], loha["c.hada_w1_a"], loha["c.hada_w1_b"]) *
                             tucker(loha["c.hada_t2"], loha["c.hada_w2_a"], loha["c.hada_w2_b"])));

  const Tensors lokr = {{"c.alpha", alpha_of(1)},
                        {"c.lokr_w1", fill_input(20, {2, 3})},
                        {"c.lokr_t2", fill_input(21, {2, 2, 1, 2, 2})},
                        {"c.lokr_w2_a", fill_input(22, {2, 2})},
                        {"c.lokr_w2_b", fill_input(23, {2, 1})}};
  std::vector<at::Tensor> places;
  for (const at::Tensor& place :
       tucker(lokr.at("c.lokr_t2"), lokr.at("c.lokr_w2_a"), lokr.at("c.lokr_w2_b")).unbind(2)) {
    places.push_back(kronecker(lokr.at("c.lokr_w1"), place));
  }
  EXPECT_TRUE(changed_by(merge(lokr), "c.weight", 0.5 * at::stack(places, 2)));
}

TEST(Lora, takes_the_scale_from_the_header_where_a_module_has_no_alpha) {
  const std::vector<std::pair<std::string, double>> cases = {
      {R"({"transformer.r": 2, "transformer.lora_alpha": 8})", 4},
      {R"({"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.use_rslora": true})", 8 / std::sqrt(2.0)},
      {R"({"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"k": 1, "q": 6}})", 3},
      {R"({"transformer.r": 9, "transformer.lora_alpha": 8, "transformer.rank_pattern": {"q": 2}})", 4},
      {R"({"text_encoder.r": 2, "text_encoder.lora_alpha": 8})", 1}};
  const at::Tensor product = product_of(lora_of_q().at("q.lora_B.weight"), lora_of_q().at("q.lora_A.weight"));
  for (const auto& [json, scale] : cases) {
    const Merged merged = merge({{file_of(lora_of_q(), {{"lora_adapter_metadata", json}}), 1}});
    EXPECT_TRUE(changed_by(merged.tensors, "q.weight", scale * product)) << json;
    EXPECT_NEAR(merged.uses.at(0).max_scale, scale, 1e-12) << json;
  }
  const auto own = file_of(with(lora_of_q(), {{"q.alpha", alpha_of(1)}}), {{"lora_adapter_metadata", cases[0].first}});
  EXPECT_TRUE(changed_by(merge({{own, 1}}).tensors, "q.weight", 0.5 * product));
}

TEST(Lora, refuses_a_header_that_is_broken_or_gives_another_rank) {
  EXPECT_THAT(refusal(lora_of_q(), {{"lora_adapter_metadata", "{"}}),
              AllOf(HasSubstr("lora.safetensors"), HasSubstr("lora_adapter_metadata")));
  EXPECT_THAT(refusal(lora_of_q(), {{"lora_adapter_metadata", "[]"}}), HasSubstr("expected a map"));
  EXPECT_THAT(refusal(lora_of_q(), {{"lora_adapter_metadata", R"({"transformer.r": 3, "transformer.lora_alpha": 3})"}}),
              AllOf(HasSubstr("q: the matrices have rank 2"), HasSubstr("says 3")));
}

TEST(Lora, takes_the_scale_from_an_adapter_config_beside_the_file) {
  test::TempFolder folder;
  save_safetensors(folder / "adapter_model.safetensors", lora_of_q());
  folder.write("adapter_config.json", R"({"r": 2, "lora_alpha": 3, "alpha_pattern": {}, "use_rslora": false})");
  const Merged merged = merge({{LoraFile::open(folder / "adapter_model.safetensors"), 1}});
  EXPECT_TRUE(changed_by(merged.tensors, "q.weight",
                         1.5 * product_of(lora_of_q().at("q.lora_B.weight"), lora_of_q().at("q.lora_A.weight"))));
}

TEST(Lora, refuses_factors_without_partner_or_rank_and_names_file_and_key) {
  const at::Tensor a = fill_input(10, {2, 6}), b = fill_input(11, {8, 2});
  const std::vector<std::tuple<Tensors, std::string, std::string>> cases = {
      {{{"q.lora_A.weight", a}}, "q.lora_A.weight", "without its lora_B"},
      {{{"q.lora_up.weight", b}}, "q.lora_up.weight", "without its lora_A"},
      {{{"q.lora_A.weight", at::zeros({0, 6})}, {"q.lora_B.weight", at::zeros({8, 0})}}, "q.lora_", "[8, 0]"},
      {{{"q.lora_A.weight", a}, {"q.lora_B.weight", at::zeros({8, 3})}}, "q.lora_B.weight", "no rank in common"},
      {{{"q.lora_A.weight", at::zeros({6})}, {"q.lora_B.weight", b}}, "q.lora_A.weight", "[6]"},
      {{{"q.hada_w1_a", b}, {"q.hada_w1_b", a}}, "q.hada_w1_a", "without its hada_w2_a"},
      {{{"q.lokr_w1", a}}, "q.lokr_w1", "without its lokr_w2"},
      {{{"q.dora_scale", at::ones({8})}}, "q.dora_scale", "without its lora_A"},
      {{{"q.lora_A.weight", a}, {"q.lora_B.weight", b}, {"q.lokr_w1", a}}, "q", "mixes factors"},
      {{{"q.lora_A.weight", a}, {"q.lora_down.weight", a}}, "q.lora_down.weight", "stands for the same thing"},
      {with(lora_of_q(), {{"q.alpha", at::ones({2})}}), "q.alpha", "expected one value"},
      {with(lora_of_q(), {{"q.alpha", at::full({}, NAN)}}), "q.alpha", "not a finite number"},
      {{{"q.diff", at::zeros({8, 6}, at::kLong)}}, "q.diff", "expected F32, F16 or BF16"}};
  for (const auto& [lora, key, message] : cases) {
    EXPECT_THAT(refusal(lora), AllOf(HasSubstr("lora.safetensors: " + key), HasSubstr(message)));
  }
}

TEST(Lora, refuses_shapes_that_do_not_fit_and_gives_both) {
  const auto pair = [](std::string module, int64_t out, int64_t in) {
    return Tensors{{module + ".lora_A.weight", at::ones({2, in})}, {module + ".lora_B.weight", at::ones({out, 2})}};
  };
  const std::vector<std::tuple<Tensors, std::string, std::string>> cases = {
      {pair("q", 8, 7), "q", "[8, 7] does not fit q.weight [8, 6]"},
      {pair("q", 6, 8), "q", "[6, 8] does not fit q.weight [8, 6]"},
      {pair("c", 4, 3), "c", "[4, 3] does not fit c.weight [4, 3, 1, 2, 2]"},
      {{{"q.diff", at::ones({6, 8})}}, "q.diff", "[6, 8] does not fit q.weight [8, 6]"},
      {{{"q.diff_b", at::ones({6})}}, "q.diff_b", "[6] does not fit q.bias [8]"},
      {{{"k.diff_b", at::ones({6})}}, "k.diff_b", "[6] does not fit k.bias [5]"},
      {with(lora_of_q(), {{"q.dora_scale", at::ones({7})}}), "q.dora_scale", "[7] does not fit q.weight [8, 6]"}};
  for (const auto& [lora, key, message] : cases) {
    EXPECT_THAT(refusal(lora), AllOf(HasSubstr("lora.safetensors: " + key), HasSubstr(message)));
  }
}

TEST(Lora, reports_the_keys_that_change_nothing) {
  const Tensors lora = with(lora_of_q(), {{"other.diff", at::ones({2})},
                                          {"nowhere.diff", at::ones({2})},
                                          {"k.alpha", alpha_of(1)},
                                          {"table.diff_b", at::ones({6})},
                                          {"junk", at::ones({2})}});
  const Merged merged = merge({{file_of(lora), 1}});
  ASSERT_EQ(merged.uses.size(), 1U);
  EXPECT_THAT(merged.uses[0].unmatched,
              ::testing::UnorderedElementsAre("other.diff", "nowhere.diff", "k.alpha", "table.diff_b", "junk"));
  EXPECT_EQ(merged.uses[0].modules, 1);
}

TEST(Lora, refuses_a_file_of_which_nothing_fits) {
  EXPECT_THAT(refusal({{"other.diff", at::ones({2})}}),
              AllOf(HasSubstr("lora.safetensors: no module of this LoRA fits"), HasSubstr("other.diff")));
  EXPECT_THAT(refusal({}), HasSubstr("no module of this LoRA fits"));
}

TEST(LoraFile, opens_the_known_formats_only) {
  test::TempFolder folder;
  EXPECT_THAT(test::message_of<WeightError>([&] { LoraFile::open(folder.write("a.gguf", "x")); }),
              AllOf(HasSubstr("a.gguf"), HasSubstr(".safetensors")));
}

TEST(LoraPrefixes, come_off_until_none_is_left) {
  for (std::string prefix : {"", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.",
                             "base_model.model.transformer.", "_orig_mod.module."}) {
    EXPECT_EQ(strip_lora_prefixes(prefix + "blocks.0.x").rest, "blocks.0.x");
    EXPECT_EQ(strip_lora_prefixes(prefix + "blocks.0.x").component, "");
    EXPECT_EQ(strip_lora_prefixes(prefix + "transformer_2.blocks.0.x").component, "transformer_2");
  }
}

}  // namespace
}  // namespace strobe::weights
