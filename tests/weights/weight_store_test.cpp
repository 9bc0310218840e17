#include "weights/weight_store.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::weights {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(WeightStore, reports_missing_unexpected_and_wrong_shapes_at_once) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"extra", at::zeros({3})}, {"q", at::zeros({2, 5}, at::kBFloat16)}});
  auto source = open_safetensors(folder / "a.safetensors");
  const std::string message = test::message_of<WeightError>([&] {
    WeightStore::bind(source, {{"q", {2, 4}}, {"k", {7}}}, "transformer");
  });
  EXPECT_THAT(message, AllOf(HasSubstr("transformer: the weights do not fit"), HasSubstr("a.safetensors"),
                             HasSubstr("1 wrong shape:\n    q: expected [2, 4], found [2, 5] BFloat16"),
                             HasSubstr("1 missing:\n    k [7]"), HasSubstr("1 unexpected:\n    extra [3]")));
}

TEST(WeightStore, shows_the_first_twelve_of_many_with_the_count) {
  std::vector<TensorSpec> expected;
  for (int i = 0; i < 30; ++i) expected.push_back({fmt::format("w{:02}", i), {1}});
  const std::string message =
      test::message_of<WeightError>([&] { WeightStore::bind(make_memory_source({}), expected, "vae"); });
  EXPECT_THAT(message, AllOf(HasSubstr("30 missing"), HasSubstr("w11"), Not(HasSubstr("w12")),
                             HasSubstr("... and 18 more"), HasSubstr("no tensors at all")));
}

TEST(WeightStore, renames_and_drops_names_of_the_file) {
  auto source = make_memory_source({{"old.a", at::ones({2})}, {"freqs", at::ones({1})}});
  Rename rename = [](std::string_view name) -> std::optional<std::string> {
    if (name == "freqs") return std::nullopt;
    return std::string(name.substr(4));
  };
  WeightStore store = WeightStore::bind(source, {{"a", {2}}}, "vae", rename);
  EXPECT_TRUE(store.contains("a"));
  EXPECT_EQ(store.load("a", at::kHalf).scalar_type(), at::kHalf);
  EXPECT_EQ(store.load_stored("a").scalar_type(), at::kFloat);
  EXPECT_THAT(test::message_of<WeightError>([&] { store.load_stored("old.a"); }),
              HasSubstr("vae: old.a: no such tensor"));
}

TEST(WeightStore, refuses_two_names_that_rename_to_one) {
  auto source = make_memory_source({{"x.a", at::ones({2})}, {"y.a", at::ones({2})}});
  Rename rename = [](std::string_view name) { return std::optional<std::string>(name.substr(2)); };
  EXPECT_THAT(test::message_of<WeightError>([&] {
                WeightStore::bind(source, {{"a", {2}}}, "vae", rename);
              }),
              HasSubstr("1 given twice:\n    x.a and y.a are both a"));
}

TEST(WeightStore, refuses_quantised_weights_by_name_and_dtype) {
  auto source = make_memory_source({{"q", at::ones({2}, at::kChar)}, {"k", at::ones({2}, at::kHalf)}});
  EXPECT_THAT(test::message_of<WeightError>([&] {
                WeightStore::bind(source, {{"q", {2}}, {"k", {2}}}, "transformer");
              }),
              AllOf(HasSubstr("1 not F32, F16 or BF16"), HasSubstr("q: Char"), Not(HasSubstr("k: "))));
}

TEST(WeightStore, loads_without_a_copy_where_the_dtype_is_as_stored) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"a", at::arange(64, at::kFloat)}});
  WeightStore store = WeightStore::bind(open_safetensors(folder / "a.safetensors"), {{"a", {64}}}, "vae");
  EXPECT_EQ(store.load("a", at::kFloat).data_ptr(), store.load("a", at::kFloat).data_ptr());
}

TEST(WeightStore, counts_bytes_by_dtype_and_parameters) {
  auto source = make_memory_source({{"a", at::ones({10}, at::kBFloat16)}, {"b", at::ones({2, 2})}});
  WeightStore store = WeightStore::bind(source, {{"a", {10}}, {"b", {2, 2}}}, "vae");
  EXPECT_EQ(count_parameters(store.specs()), 14);
  const std::vector<std::pair<at::ScalarType, int64_t>> expected{{at::kBFloat16, 20}, {at::kFloat, 16}};
  EXPECT_EQ(store.bytes_by_dtype(), expected);
}

}  // namespace
}  // namespace strobe::weights
