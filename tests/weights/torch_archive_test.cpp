#include "weights/torch_archive.h"

#include <gmock/gmock.h>

#include <cstring>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"
#include "weights/safetensors.h"

namespace strobe::weights {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

template <class T>
std::string little(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

struct ZipEntry {
  std::string name;
  std::string bytes;
  uint16_t method = 0;
  uint16_t flags = 0;
};

// A zip archive without checksums, which nothing here looks at.
std::string make_zip(const std::vector<ZipEntry>& entries) {
  std::string archive, directory;
  for (const ZipEntry& entry : entries) {
    const auto size = static_cast<uint32_t>(entry.bytes.size());
    const auto name_size = static_cast<uint16_t>(entry.name.size());
    const std::string shared = little(entry.flags) + little(entry.method) + little(uint32_t{0}) + little(uint32_t{0}) +
                               little(size) + little(size) + little(name_size) + little(uint16_t{0});
    directory += "PK\1\2" + std::string(2, '\0') + little(uint16_t{20}) + shared + std::string(10, '\0') +
                 little(static_cast<uint32_t>(archive.size())) + entry.name;
    archive += "PK\3\4" + little(uint16_t{20}) + shared + entry.name + entry.bytes;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  return archive + directory + "PK\5\6" + std::string(4, '\0') + little(count) + little(count) +
         little(static_cast<uint32_t>(directory.size())) + little(static_cast<uint32_t>(archive.size())) +
         std::string(2, '\0');
}

std::string text(const std::string& value) { return "X" + little(static_cast<uint32_t>(value.size())) + value; }

std::string integer(int64_t value) { return "\x8a\x08" + little(value); }

std::string integers(const std::vector<int64_t>& values) {
  std::string pickle = "(";
  for (int64_t value : values) pickle += integer(value);
  return pickle + "t";
}

struct Pickled {
  std::string storage_class = "FloatStorage";
  std::string key = "0";
  int64_t storage_numel = 4;
  int64_t offset = 0;
  std::vector<int64_t> shape = {2, 2};
  std::vector<int64_t> strides = {2, 1};
};

std::string pickle_tensor(const Pickled& tensor) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + tensor.storage_class + "\n" +
         text(tensor.key) + text("cpu") + integer(tensor.storage_numel) + "tQ" + integer(tensor.offset) +
         integers(tensor.shape) + integers(tensor.strides) + "\x89" + "}tR";
}

std::string pickle_dict(const std::string& items) { return "\x80\x02}(" + items + "u."; }

std::string make_archive(const std::string& pickle, const std::string& storage = std::string(16, '\0')) {
  return make_zip({{"a/data.pkl", pickle}, {"a/data/0", storage}});
}

std::string refusal(const std::string& archive) {
  test::TempFolder folder;
  const std::filesystem::path path = folder.write("a.pth", archive);
  std::string message = test::message_of<WeightError>([&] { open_torch_archive(path); });
  if (message.starts_with(folder.path().string())) message.erase(0, folder.path().string().size() + 1);
  return message;
}

std::string refusal(const Pickled& tensor) {
  return refusal(make_archive(pickle_dict(text("w") + pickle_tensor(tensor))));
}

std::string replaced(std::string bytes, const std::string& what, const std::string& with) {
  EXPECT_EQ(what.size(), with.size());
  const size_t at = bytes.find(what);
  EXPECT_NE(at, std::string::npos);
  return bytes.replace(at, what.size(), with);
}

std::string fixture() { return test::read_file(test::golden_path("weights/state_dict.pth")); }

TEST(TorchArchive, reads_a_state_dict_that_pytorch_saved) {
  auto source = open_torch_archive(test::golden_path("weights/state_dict.pth"));
  std::vector<std::string> names;
  for (const TensorInfo& info : source->tensors()) names.push_back(info.name);
  EXPECT_THAT(names, ::testing::ElementsAre("0.bias", "0.weight", "1.weight", "empty", "half", "mask", "scalar",
                                            "shared", "view"));
  const at::Tensor base = at::arange(24, at::kFloat);
  EXPECT_TRUE(at::equal(source->read("0.weight"), at::arange(6, at::kBFloat16).reshape({2, 3})));
  EXPECT_TRUE(at::equal(source->read("0.bias"), at::arange(10, 12, at::kBFloat16)));
  EXPECT_TRUE(at::equal(source->read("1.weight"), at::arange(20, 26, at::kBFloat16).reshape({3, 2})));
  EXPECT_TRUE(at::equal(source->read("view"), base.slice(0, 4, 16).view({3, 4}).t()));
  EXPECT_TRUE(source->read("view").is_contiguous());
  EXPECT_TRUE(at::equal(source->read("shared"), base.slice(0, 2, 4)));
  EXPECT_TRUE(at::equal(source->read("scalar"), at::scalar_tensor(3, at::kLong)));
  EXPECT_EQ(source->read("empty").sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(at::equal(source->read("half"), at::tensor({0.5F, -2.0F}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(source->read("mask"), at::tensor({1, 0, 1}, at::kInt).to(at::kBool)));
  EXPECT_THAT(source->file_of("view"), EndsWith("state_dict.pth"));
  EXPECT_EQ(open_weights(test::golden_path("weights/state_dict.pth"))->tensors().size(), 9U);
}

TEST(TorchArchive, tensors_outlive_the_source_and_the_file) {
  test::TempFolder folder;
  auto source = open_torch_archive(folder.write("a.pth", fixture()));
  at::Tensor read = source->read("shared");
  source.reset();
  std::filesystem::remove(folder / "a.pth");
  EXPECT_EQ(read[1].item<float>(), 3);
}

TEST(TorchArchive, a_misaligned_storage_is_copied) {
  const std::vector<float> values{1, 2, 3, 4};
  const std::string storage(reinterpret_cast<const char*>(values.data()), 16);
  for (const char* name : {"a", "ab", "abc", "abcd"}) {
    test::TempFolder folder;
    const std::string archive =
        make_zip({{std::string(name) + "/data.pkl", pickle_dict(text("w") + pickle_tensor({.strides = {1, 2}}))},
                  {std::string(name) + "/data/0", storage}});
    at::Tensor read = open_torch_archive(folder.write("a.pth", archive))->read("w");
    EXPECT_TRUE(at::equal(read, at::tensor({1.0F, 3.0F, 2.0F, 4.0F}).reshape({2, 2})));
  }
}

TEST(TorchArchive, refuses_globals_beyond_its_list_by_name) {
  EXPECT_THAT(refusal(replaced(fixture(), "ccollections\nOrderedDict\n", "cposix\nsystem___________\n")),
              HasSubstr("data.pkl: the global posix.system___________ is not allowed in a dict of tensors"));
  EXPECT_THAT(refusal(make_archive("\x80\x02"
                                   "cos\nsystem\n(" +
                                   text("true") + "tR.")),
              HasSubstr("the global os.system is not allowed"));
  EXPECT_THAT(refusal(Pickled{.storage_class = "DoubleStorage"}),
              HasSubstr("the global torch.DoubleStorage is not allowed"));
  EXPECT_THAT(refusal(make_archive("\x80\x02"
                                   "ctorch._utils\n_rebuild_parameter\n.")),
              HasSubstr("the global torch._utils._rebuild_parameter is not allowed"));
}

TEST(TorchArchive, refuses_opcodes_that_no_state_dict_has) {
  // INST, OBJ, NEWOBJ and EXT1 can all make objects.
  for (const char* opcode : {"i", "o", "\x81", "\x82"}) {
    EXPECT_THAT(refusal(make_archive("\x80\x02" + std::string(opcode))),
                HasSubstr("is not one that torch.save writes"));
  }
}

TEST(TorchArchive, refuses_values_that_are_not_tensors_by_key) {
  EXPECT_THAT(refusal(make_archive(pickle_dict(text("step") + integer(3)))),
              HasSubstr("step: expected a tensor, found an integer"));
  EXPECT_THAT(refusal(make_archive(pickle_dict(text("state_dict") + "}"))),
              HasSubstr("state_dict: expected a tensor, found a dict"));
  EXPECT_THAT(refusal(make_archive(pickle_dict(integer(1) + pickle_tensor({})))),
              HasSubstr("a key of the dict: expected a string, found an integer"));
  EXPECT_THAT(refusal(make_archive("\x80\x02" + pickle_tensor({}) + ".")),
              HasSubstr("expected a dict of tensors, found a tensor"));
}

TEST(TorchArchive, refuses_damaged_pickles) {
  const std::string start = "\x80\x02";
  for (const std::string& pickle : {std::string(),
                                    std::string("\x80"),
                                    std::string("\x80\x04."),
                                    start,
                                    start + ".",
                                    start + "}",
                                    start + "}}.",
                                    start + "R.",
                                    start + "0.",
                                    start + "t.",
                                    start + "}s.",
                                    start + "}(" + text("a") + "u.",
                                    start + "h\x05.",
                                    start + "q\x05.",
                                    start + "(q\x05.",
                                    start + "\x8a\x09.",
                                    start + "Xzzzz.",
                                    start + "cos",
                                    start + "]b.",
                                    start + "}]b.",
                                    start + ")Q.",
                                    start + "))R.",
                                    start + "(.",
                                    start + "\x85.",
                                    start + "(}(\x86.",
                                    start + "}(" + text("a") + "ctorch._utils\n_rebuild_tensor_v2\n)Ru."}) {
    EXPECT_THAT(refusal(make_archive(pickle)), testing::StartsWith("a.pth: data.pkl: "));
  }
}

TEST(TorchArchive, refuses_tensors_beyond_their_storage) {
  const std::string beyond = "a.pth: w: offset, shape and strides go beyond its storage";
  constexpr int64_t kBig = int64_t{1} << 62;
  EXPECT_EQ(refusal(Pickled{}), "(no error)");
  EXPECT_EQ(refusal(Pickled{.offset = 1}), beyond);
  EXPECT_EQ(refusal(Pickled{.strides = {3, 1}}), beyond);
  EXPECT_EQ(refusal(Pickled{.strides = {kBig, kBig}}), beyond);
  EXPECT_EQ(refusal(Pickled{.offset = kBig, .strides = {kBig, 1}}), beyond);
  EXPECT_EQ(refusal(Pickled{.shape = {kBig, 1}}), "a.pth: w: shape: the number of bytes overflows");
  EXPECT_EQ(refusal(Pickled{.shape = {0, kBig}}), "a.pth: w: shape: the number of bytes overflows");
  EXPECT_EQ(refusal(Pickled{.shape = {2, 3}, .strides = {0, 0}}), "a.pth: w: more elements than its storage");
  EXPECT_EQ(refusal(Pickled{.offset = -1}), "a.pth: w: a negative offset, size or stride");
  EXPECT_EQ(refusal(Pickled{.strides = {-2, 1}}), "a.pth: w: a negative offset, size or stride");
  EXPECT_EQ(refusal(Pickled{.strides = {1}}), "a.pth: w: shape and strides of different length");
}

TEST(TorchArchive, refuses_storages_that_are_missing_or_of_another_size) {
  EXPECT_EQ(refusal(Pickled{.key = "7"}), "a.pth: w: no entry a/data/7");
  EXPECT_EQ(refusal(Pickled{.key = "../../x"}), "a.pth: w: no entry a/data/../../x");
  EXPECT_EQ(refusal(Pickled{.storage_numel = 5}),
            "a.pth: w: its storage should have 5 elements of 4 bytes, the archive has 16 bytes");
  EXPECT_EQ(refusal(Pickled{.storage_numel = -1}),
            "a.pth: w: its storage should have -1 elements of 4 bytes, the archive has 16 bytes");
}

TEST(TorchArchive, refuses_a_name_given_twice) {
  EXPECT_EQ(refusal(make_archive(pickle_dict(text("w") + pickle_tensor({}) + text("w") + pickle_tensor({})))),
            "a.pth: w: the name stands twice");
}

TEST(TorchArchive, refuses_what_is_no_archive_of_pytorch) {
  const std::string no_zip = "a.pth: not a zip archive (a .pth of PyTorch before 1.6, or an incomplete file?)";
  EXPECT_EQ(refusal(std::string()), no_zip);
  EXPECT_EQ(refusal(std::string(100, 'x')), no_zip);
  const std::string whole = fixture();
  EXPECT_EQ(refusal(whole.substr(0, whole.size() / 2)), no_zip);
  EXPECT_EQ(refusal(make_zip({{"a/x", ""}})), "a.pth: no data.pkl: not written by torch.save");
  EXPECT_EQ(refusal(make_zip({{"a/data.pkl", ""}, {"b/data.pkl", ""}})), "a.pth: two data.pkl");
  EXPECT_EQ(refusal(make_zip({{"a/data.pkl", ""}, {"a/byteorder", "big"}})),
            "a.pth: byte order 'big', only little is read");
}

TEST(TorchArchive, refuses_zip_entries_that_are_not_stored_plainly) {
  EXPECT_EQ(refusal(make_zip({{"a/x", "1", 8}})),
            "a.pth: a/x: compressed (method 8); PyTorch stores entries as they are");
  EXPECT_EQ(refusal(make_zip({{"a/x", "1", 0, 1}})), "a.pth: a/x: the entry is encrypted");
  EXPECT_EQ(refusal(make_zip({{"a/x", "1"}, {"a/x", "1"}})), "a.pth: a/x: the entry stands twice");
}

TEST(TorchArchive, refuses_zip_offsets_outside_the_file) {
  const std::string zip = make_zip({{"a/x", "1234"}});
  const size_t end = zip.size() - 22;
  const size_t central = end - 46 - 3;
  auto with = [&](size_t at, uint32_t value) {
    std::string changed = zip;
    std::memcpy(changed.data() + at, &value, 4);
    return refusal(changed);
  };
  EXPECT_THAT(with(end + 16, 0x7FFFFFFF), HasSubstr("lies outside the file"));
  EXPECT_THAT(with(end + 12, 10), HasSubstr("the directory is damaged"));
  EXPECT_THAT(with(central + 42, 0x7FFFFFFF), HasSubstr("a/x: lies outside the file"));
  EXPECT_THAT(with(central + 42, 1), HasSubstr("a/x: its local header is damaged"));
  EXPECT_THAT(with(central + 42, 0xFFFFFFFF), HasSubstr("a/x: its zip64 field is too short"));
  EXPECT_THAT(with(central + 20, 3), HasSubstr("stored, but with two different sizes"));
  EXPECT_THAT(with(0, 0), HasSubstr("a/x: its local header is damaged"));
  EXPECT_THAT(with(30, 0), HasSubstr("a/x: its local header has another name"));
}

TEST(TorchArchive, every_truncation_of_a_real_archive_is_refused) {
  const std::string whole = fixture();
  for (size_t size = 0; size < whole.size(); size += 37) {
    EXPECT_THAT(refusal(whole.substr(0, size)), testing::StartsWith("a.pth: "));
  }
}

}  // namespace
}  // namespace strobe::weights
