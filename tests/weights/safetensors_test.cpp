#include "weights/safetensors.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"

namespace strobe::weights {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string file_bytes(const std::string& header, size_t data_size) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_size, '\0');
}

// The message with the folder's name taken off.
std::string refusal(std::string_view bytes) {
  test::TempFolder folder;
  const std::filesystem::path path = folder.write("a.safetensors", bytes);
  std::string message = test::message_of<WeightError>([&] { open_safetensors(path); });
  if (size_t at = message.find(folder.path().string() + "/"); at == 0)
    message.erase(0, folder.path().string().size() + 1);
  return message;
}

std::string refusal(const std::string& header, size_t data_size) { return refusal(file_bytes(header, data_size)); }

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::map<std::string, at::Tensor> mixed_tensors() {
  return {{"b.f32", at::arange(6, at::kFloat).reshape({2, 3})},
          {"a.bf16", at::arange(3, at::kFloat).to(at::kBFloat16)},
          {"c.f16", at::tensor({0.5F, -2.0F}).to(at::kHalf)},
          {"d.scalar", at::tensor(7, at::kLong).reshape({})},
          {"e.empty", at::empty({0, 4}, at::kFloat)},
          {"f.mask", at::tensor({1, 0, 1}, at::kInt).to(at::kBool)},
          {"g.bytes", at::arange(5, at::kByte)},
          {"h.short", at::arange(-2, 2, at::kShort)},
          {"i.int", at::arange(4, at::kInt)},
          {"j.char", at::arange(-3, 0, at::kChar)},
          {"k.transposed", at::arange(6, at::kFloat).reshape({2, 3}).t()}};
}

TEST(Safetensors, tensors_of_every_dtype_come_back_as_they_were) {
  test::TempFolder folder;
  const std::map<std::string, at::Tensor> tensors = mixed_tensors();
  save_safetensors(folder / "a.safetensors", tensors);
  auto source = open_safetensors(folder / "a.safetensors");
  ASSERT_EQ(source->tensors().size(), tensors.size());
  size_t i = 0;
  for (const auto& [name, tensor] : tensors) {
    SCOPED_TRACE(name);
    const TensorInfo& info = source->tensors()[i++];
    EXPECT_EQ(info.name, name);
    EXPECT_EQ(info.dtype, tensor.scalar_type());
    EXPECT_EQ(info.shape, tensor.sizes().vec());
    at::Tensor read = source->read(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(read.is_contiguous());
    EXPECT_TRUE(at::equal(read, tensor));
  }
  EXPECT_EQ(source->file_of("b.f32"), (folder / "a.safetensors").string());
}

TEST(Safetensors, metadata_comes_back) {
  test::TempFolder folder;
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"note", "\"é\"\n"}};
  save_safetensors(folder / "a.safetensors", {}, metadata);
  EXPECT_EQ(open_safetensors(folder / "a.safetensors")->metadata(), metadata);
}

TEST(Safetensors, the_header_is_padded_to_eight_bytes_and_data_is_in_name_order) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"b", at::full({1}, 2, at::kByte)}, {"a", at::full({1}, 1, at::kByte)}});
  const std::string bytes = test::read_file(folder / "a.safetensors");
  EXPECT_EQ((bytes.size() - 2) % 8, 0U);
  EXPECT_EQ(bytes.substr(bytes.size() - 2), "\1\2");
  EXPECT_EQ(bytes.substr(8, 54), R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},")");
}

TEST(Safetensors, aligned_tensors_alias_the_file_and_outlive_the_source) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"a", at::arange(1024, at::kFloat)}});
  auto source = open_safetensors(folder / "a.safetensors");
  at::Tensor first = source->read("a");
  EXPECT_EQ(first.data_ptr(), source->read("a").data_ptr());
  source.reset();
  std::filesystem::remove(folder / "a.safetensors");
  EXPECT_EQ(first.sum().item<float>(), 1023 * 512);
}

TEST(Safetensors, a_misaligned_tensor_is_copied) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"a", at::ones({1}, at::kByte)}, {"b", at::arange(9, at::kFloat)}});
  auto source = open_safetensors(folder / "a.safetensors");
  at::Tensor read = source->read("b");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read.data_ptr()) % alignof(float), 0U);
  EXPECT_TRUE(at::equal(read, at::arange(9, at::kFloat)));
}

TEST(Safetensors, an_unknown_name_is_an_error_naming_the_file) {
  auto source = make_memory_source({});
  EXPECT_EQ(test::message_of<WeightError>([&] { source->read("x"); }), "memory: x: no such tensor");
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {});
  auto file = open_safetensors(folder / "a.safetensors");
  EXPECT_THAT(test::message_of<WeightError>([&] { file->read("x"); }), EndsWith("a.safetensors: x: no such tensor"));
}

TEST(Safetensors, a_file_that_is_not_there_is_an_io_error) {
  test::TempFolder folder;
  EXPECT_THAT(test::message_of<IoError>([&] { open_safetensors(folder / "none"); }),
              EndsWith("none: open: No such file or directory"));
  EXPECT_THAT(test::message_of<IoError>([&] { open_safetensors(folder.path()); }), EndsWith("not a regular file"));
}

TEST(Safetensors, refuses_a_file_of_too_few_bytes) {
  EXPECT_EQ(refusal(""), "a.safetensors: 0 bytes are too few for a safetensors file");
  EXPECT_EQ(refusal("1234567"), "a.safetensors: 7 bytes are too few for a safetensors file");
}

TEST(Safetensors, refuses_a_header_length_beyond_the_file) {
  EXPECT_EQ(refusal(file_bytes("{}", 0).substr(0, 9)),
            "a.safetensors: a header of 2 bytes goes beyond the file's 9 (is the file complete?)");
}

TEST(Safetensors, refuses_a_header_over_the_limit) {
  std::string bytes(16, '\xff');
  EXPECT_THAT(refusal(bytes), HasSubstr("a header of 18446744073709551615 bytes, the limit is 100000000"));
}

TEST(Safetensors, refuses_a_header_that_is_not_one_json_map) {
  EXPECT_EQ(refusal("", 0), "a.safetensors: the header does not begin with '{'");
  EXPECT_EQ(refusal("[]", 0), "a.safetensors: the header does not begin with '{'");
  EXPECT_EQ(refusal("{", 0), "a.safetensors: the header is not valid JSON at its byte 2");
  EXPECT_EQ(refusal("{} {}", 0), "a.safetensors: the header is not valid JSON at its byte 4");
  EXPECT_EQ(refusal(std::string("{}\0x", 4), 0), "a.safetensors: the header is not valid JSON at its byte 3");
  EXPECT_EQ(refusal("{\"a\": 1e999}", 0),
            "a.safetensors: the header is not valid JSON at its byte 11 (after the name a)");
}

TEST(Safetensors, refuses_wrong_types_in_the_header) {
  EXPECT_EQ(refusal(R"({"a":3})", 0), "a.safetensors: a: expected a map, found the number 3");
  EXPECT_EQ(refusal(R"({"a":[]})", 0), "a.safetensors: a: expected a map, found a list");
  EXPECT_EQ(refusal(R"({"a":null})", 0), "a.safetensors: a: expected a map, found null");
  EXPECT_EQ(refusal(R"({"a":)" + entry("3", "[]", "[0,4]") + "}", 4),
            "a.safetensors: a: dtype must be a string, found the number 3");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "4", "[0,4]") + "}", 4),
            "a.safetensors: a: shape must be a list of whole numbers, found the number 4");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[[1]]", "[0,4]") + "}", 4),
            "a.safetensors: a: shape must be a list of whole numbers, found a list");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1]", R"(["0",4])") + "}", 4),
            "a.safetensors: a: data_offsets must be two whole numbers, found the string '0'");
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":1}})", 0),
            "a.safetensors: __metadata__: 'x' must be a string, found the number 1");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1]}})", 4),
            "a.safetensors: a: needs dtype, shape and data_offsets");
  EXPECT_EQ(refusal(R"({"a":{"stride":[1]}})", 4), "a.safetensors: a: unknown key 'stride'");
  EXPECT_EQ(refusal(R"({"a":{"dtype":{}}})", 4), "a.safetensors: a: dtype must be a string, found a map");
}

TEST(Safetensors, refuses_negative_and_fractional_numbers) {
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[-1]", "[0,4]") + "}", 4),
            "a.safetensors: a: shape must be a list of whole numbers, found the negative number -1");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1.0]", "[0,4]") + "}", 4),
            "a.safetensors: a: shape must be a list of whole numbers, found the number 1.0");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1]", "[0,-4]") + "}", 4),
            "a.safetensors: a: data_offsets must be two whole numbers, found the negative number -4");
}

TEST(Safetensors, refuses_offsets_that_are_not_two) {
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1]", "[0]") + "}", 4),
            "a.safetensors: a: data_offsets: expected two numbers");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1]", "[0,4,8]") + "}", 4),
            "a.safetensors: a: data_offsets: more than two numbers");
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[1]", "[4,0]") + "}", 4),
            "a.safetensors: a: data_offsets: 4 is after 0");
}

TEST(Safetensors, refuses_duplicate_names_and_keys) {
  const std::string one = entry(R"("F32")", "[1]", "[0,4]");
  EXPECT_EQ(refusal(R"({"a":)" + one + R"(,"a":)" + one + "}", 4), "a.safetensors: a: the name stands twice");
  EXPECT_EQ(refusal(R"({"a":{"shape":[1],"shape":[1]}})", 4), "a.safetensors: a: the key 'shape' stands twice");
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":"","x":""}})", 0), "a.safetensors: __metadata__: the key 'x' stands twice");
}

TEST(Safetensors, refuses_dtypes_that_it_does_not_know_by_name) {
  for (const char* dtype : {"F8_E4M3", "F64", "f32", ""}) {
    EXPECT_EQ(refusal(R"({"blocks.0.weight":)" + entry("\"" + std::string(dtype) + "\"", "[1]", "[0,1]") + "}", 1),
              "a.safetensors: blocks.0.weight: dtype " + std::string(dtype) +
                  " is not supported (expected one of F32, F16, BF16, I8, I16, I32, I64, U8, BOOL)");
  }
}

TEST(Safetensors, refuses_offsets_that_do_not_match_shape_and_dtype) {
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("BF16")", "[3]", "[0,4]") + "}", 4),
            "a.safetensors: a: data_offsets: 4 bytes, but shape and dtype need 6");
}

TEST(Safetensors, refuses_a_truncated_file) {
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[2]", "[0,8]") + "}", 7),
            "a.safetensors: a: data_offsets: ends at byte 8 of the data, which has 7 (is the file complete?)");
}

TEST(Safetensors, refuses_overlaps_holes_and_bytes_of_no_tensor) {
  const std::string a = R"({"a":)" + entry(R"("F32")", "[2]", "[0,8]");
  EXPECT_EQ(refusal(a + R"(,"b":)" + entry(R"("F32")", "[1]", "[4,8]") + "}", 8), "a.safetensors: b: overlaps a");
  EXPECT_EQ(refusal(a + R"(,"b":)" + entry(R"("F32")", "[1]", "[12,16]") + "}", 16),
            "a.safetensors: b: a hole of 4 bytes before it");
  EXPECT_EQ(refusal(a + "}", 12), "a.safetensors: 4 bytes after the last tensor a belong to none");
  EXPECT_EQ(refusal("{}", 3), "a.safetensors: 3 bytes after the last tensor belong to none");
}

TEST(Safetensors, refuses_shapes_that_overflow) {
  const std::string big = "4611686018427387904";
  const std::string message = "a.safetensors: a: shape: the number of bytes overflows";
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[" + big + "," + big + "]", "[0,0]") + "}", 0), message);
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[" + big + "]", "[0,0]") + "}", 0), message);
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[0," + big + "," + big + "]", "[0,0]") + "}", 0), message);
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", "[18446744073709551615]", "[0,4]") + "}", 4),
            "a.safetensors: a: shape: a size overflows");
  EXPECT_THAT(refusal(R"({"a":)" + entry(R"("F32")", "[99999999999999999999]", "[0,4]") + "}", 4),
              HasSubstr("a: shape must be a list of whole numbers"));
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_EQ(refusal(R"({"a":)" + entry(R"("F32")", ones + "]", "[0,4]") + "}", 4),
            "a.safetensors: a: shape: more than 64 axes");
}

TEST(Safetensors, refuses_bool_bytes_other_than_0_and_1) {
  test::TempFolder folder;
  std::string bytes = file_bytes(R"({"a":)" + entry(R"("BOOL")", "[2]", "[0,2]") + "}", 2);
  bytes.back() = '\2';
  auto source = open_safetensors(folder.write("a.safetensors", bytes));
  EXPECT_THAT(test::message_of<WeightError>([&] { source->read("a"); }), EndsWith("a: a BOOL byte is neither 0 nor 1"));
}

TEST(SafetensorsWriter, replaces_a_file_whole_and_leaves_nothing_beside_it) {
  test::TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"a", at::zeros({4})}});
  auto old = open_safetensors(folder / "a.safetensors");
  save_safetensors(folder / "a.safetensors", {{"a", at::ones({4})}});
  EXPECT_EQ(old->read("a").sum().item<float>(), 0);
  EXPECT_EQ(open_safetensors(folder / "a.safetensors")->read("a").sum().item<float>(), 4);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SafetensorsWriter, a_failed_save_keeps_the_old_file_and_no_temporary_one) {
  test::TempFolder folder;
  std::filesystem::create_directory(folder / "taken");
  EXPECT_THAT(test::message_of<IoError>([&] {
                save_safetensors(folder / "taken", {{"a", at::zeros({4})}});
              }),
              HasSubstr("taken: rename: "));
  EXPECT_THAT(test::message_of<IoError>([&] { save_safetensors(folder / "none" / "a", {}); }), HasSubstr("open: "));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SafetensorsWriter, refuses_what_it_cannot_store_by_name) {
  test::TempFolder folder;
  auto save = [&](const std::string& name, const at::Tensor& tensor) {
    return test::message_of<WeightError>([&] { save_safetensors(folder / "a", {{name, tensor}}); });
  };
  EXPECT_THAT(save("x", at::zeros({1}, at::kDouble)), HasSubstr("a: x: dtype Double cannot be stored"));
  EXPECT_THAT(save("__metadata__", at::zeros({1})), EndsWith("__metadata__: a reserved name"));
  EXPECT_THAT(save("x", at::Tensor()), EndsWith("x: an undefined tensor"));
  EXPECT_THAT(save("\xff", at::zeros({1})), EndsWith("is not UTF-8"));
}

TEST(SafetensorsWriter, takes_tensors_in_parts_and_leaves_zeros_where_it_skips) {
  test::TempFolder folder;
  SafetensorsWriter writer(
      folder / "a",
      {{"x", {2, 3}, at::kFloat}, {"empty", {0}, at::kFloat}, {"y", {4}, at::kBFloat16}, {"z", {5}, at::kFloat}});
  writer.append(at::arange(4, at::kFloat));
  writer.append(at::arange(4, 6, at::kFloat));
  writer.append(at::ones({4}, at::kBFloat16));
  EXPECT_THAT(test::message_of<ShapeError>([&] { writer.publish(); }), HasSubstr("z is not written yet"));
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  writer.append(at::ones({2}, at::kFloat));
  writer.skip();
  EXPECT_THROW(writer.append(at::ones({1})), ShapeError);
  writer.publish();
  const auto source = open_safetensors(folder / "a");
  EXPECT_TRUE(at::equal(source->read("x"), at::arange(6, at::kFloat).view({2, 3})));
  EXPECT_TRUE(at::equal(source->read("y"), at::ones({4}, at::kBFloat16)));
  EXPECT_EQ(source->read("z").sum().item<float>(), 2);
}

TEST(SafetensorsWriter, refuses_elements_that_do_not_fit_and_leaves_nothing) {
  test::TempFolder folder;
  {
    SafetensorsWriter writer(folder / "a", {{"x", {3}, at::kFloat}});
    EXPECT_THROW(writer.append(at::ones({4})), ShapeError);
    EXPECT_THROW(writer.append(at::ones({3}, at::kBFloat16)), ShapeError);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace strobe::weights
