#include "weights/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "weights/dtypes.h"

namespace strobe::weights {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kMaxNameShown = 200;

std::string shown(std::string_view name) {
  if (name.size() <= kMaxNameShown) return std::string(name);
  return std::string(name.substr(0, kMaxNameShown)) + "...";
}

// A state machine over the parser's events rather than a tree: the header may be 100 MB, and of a tree's memory most
// would go to a hostile file's numbers.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, SafetensorsHeader& header) : file_(file), header_(header) {}

  bool null() override { refuse("null"); }
  bool boolean(bool value) override { refuse(value ? "true" : "false"); }
  bool number_integer(int64_t value) override { refuse(fmt::format("the negative number {}", value)); }
  bool number_float(double, const std::string& text) override { refuse(fmt::format("the number {}", shown(text))); }
  bool binary(nlohmann::json::binary_t&) override { refuse("bytes"); }

  bool number_unsigned(uint64_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) fail("shape: a size overflows");
      if (entry_.shape.size() == kMaxAxes) fail(fmt::format("shape: more than {} axes", kMaxAxes));
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == State::kOffsets) {
      if (num_offsets_ == 2) fail("data_offsets: more than two numbers");
      (num_offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    } else {
      refuse(fmt::format("the number {}", value));
    }
    return true;
  }

  bool string(std::string& value) override {
    if (state_ == State::kMetadataValue) {
      header_.metadata[metadata_key_] = std::move(value);
      state_ = State::kMetadata;
    } else if (state_ == State::kDtype) {
      auto found = std::find_if(kDtypes.begin(), kDtypes.end(),
                                [&](const Dtype& dtype) { return dtype.safetensors_name == value; });
      if (found == kDtypes.end()) {
        fail(fmt::format("dtype {} is not supported (expected one of {})", shown(value), kDtypeNames));
      }
      entry_.dtype = found->type;
      state_ = State::kTensor;
    } else {
      refuse(fmt::format("the string '{}'", shown(value)));
    }
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTopValue) {
      state_ = name_ == kSafetensorsMetadataKey ? State::kMetadata : State::kTensor;
      entry_ = SafetensorsEntry{};
      entry_keys_ = 0;
    } else {
      refuse("a map");
    }
    return true;
  }

  bool key(std::string& key) override {
    if (state_ == State::kTop) {
      if (!names_.insert(key).second)
        throw WeightError(fmt::format("{}: {}: the name stands twice", file_, shown(key)));
      name_ = std::move(key);
      state_ = State::kTopValue;
    } else if (state_ == State::kMetadata) {
      if (header_.metadata.contains(key)) fail(fmt::format("the key '{}' stands twice", shown(key)));
      metadata_key_ = std::move(key);
      state_ = State::kMetadataValue;
    } else {
      begin_tensor_key(key);
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      if (entry_keys_ != (kHasDtype | kHasShape | kHasOffsets)) fail("needs dtype, shape and data_offsets");
      entry_.name = name_;
      header_.tensors.push_back(std::move(entry_));
    }
    state_ = state_ == State::kTop ? State::kDone : State::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (state_ == State::kShapeStart) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsStart) {
      state_ = State::kOffsets;
      num_offsets_ = 0;
    } else {
      refuse("a list");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && num_offsets_ != 2) fail("data_offsets: expected two numbers");
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    throw WeightError(fmt::format("{}: the header is not valid JSON at its byte {}{}", file_, position,
                                  name_.empty() ? "" : " (after the name " + shown(name_) + ")"));
  }

 private:
  enum class State {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kDtype,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
    kDone
  };
  static constexpr int kHasDtype = 1;
  static constexpr int kHasShape = 2;
  static constexpr int kHasOffsets = 4;

  void begin_tensor_key(const std::string& key) {
    int bit = 0;
    if (key == "dtype") {
      bit = kHasDtype;
      state_ = State::kDtype;
    } else if (key == "shape") {
      bit = kHasShape;
      state_ = State::kShapeStart;
    } else if (key == "data_offsets") {
      bit = kHasOffsets;
      state_ = State::kOffsetsStart;
    } else {
      fail(fmt::format("unknown key '{}'", shown(key)));
    }
    if (entry_keys_ & bit) fail(fmt::format("the key '{}' stands twice", key));
    entry_keys_ |= bit;
  }

  [[noreturn]] void fail(const std::string& message) const {
    throw WeightError(fmt::format("{}: {}: {}", file_, shown(name_), message));
  }

  [[noreturn]] void refuse(const std::string& found) const {
    switch (state_) {
      case State::kStart:
      case State::kDone:
        throw WeightError(fmt::format("{}: the header must be one map, found {}", file_, found));
      case State::kMetadataValue:
        fail(fmt::format("'{}' must be a string, found {}", shown(metadata_key_), found));
      case State::kDtype:
        fail(fmt::format("dtype must be a string, found {}", found));
      case State::kShapeStart:
      case State::kShape:
        fail(fmt::format("shape must be a list of whole numbers, found {}", found));
      case State::kOffsetsStart:
      case State::kOffsets:
        fail(fmt::format("data_offsets must be two whole numbers, found {}", found));
      default:
        fail(fmt::format("expected a map, found {}", found));
    }
  }

  const std::string& file_;
  SafetensorsHeader& header_;
  State state_ = State::kStart;
  std::unordered_set<std::string> names_;
  std::string name_;
  std::string metadata_key_;
  SafetensorsEntry entry_;
  int entry_keys_ = 0;
  int num_offsets_ = 0;
};

// Bytes that tensors need, and that they lie inside the data.
void check_entry(const SafetensorsEntry& entry, uint64_t data_size, const std::string& file) {
  auto fail = [&](const std::string& message) {
    throw WeightError(fmt::format("{}: {}: {}", file, shown(entry.name), message));
  };
  const uint64_t element_bytes = find_dtype(entry.dtype)->bytes;
  const std::optional<int64_t> numel = checked_numel(entry.shape, element_bytes);
  if (!numel) fail("shape: the number of bytes overflows");
  if (entry.begin > entry.end) fail(fmt::format("data_offsets: {} is after {}", entry.begin, entry.end));
  if (entry.end > data_size) {
    fail(fmt::format("data_offsets: ends at byte {} of the data, which has {} (is the file complete?)", entry.end,
                     data_size));
  }
  const uint64_t expected = static_cast<uint64_t>(*numel) * element_bytes;
  if (entry.end - entry.begin != expected) {
    fail(fmt::format("data_offsets: {} bytes, but shape and dtype need {}", entry.end - entry.begin, expected));
  }
}

void check_layout(const std::vector<SafetensorsEntry>& tensors, uint64_t data_size, const std::string& file) {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : tensors) {
    check_entry(entry, data_size, file);
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::tie(a->begin, a->end) < std::tie(b->begin, b->end);
  });
  uint64_t position = 0;
  const SafetensorsEntry* previous = nullptr;
  for (const SafetensorsEntry* entry : order) {
    if (entry->begin < position) {
      throw WeightError(fmt::format("{}: {}: overlaps {}", file, shown(entry->name), shown(previous->name)));
    }
    if (entry->begin > position) {
      throw WeightError(
          fmt::format("{}: {}: a hole of {} bytes before it", file, shown(entry->name), entry->begin - position));
    }
    position = entry->end;
    previous = entry;
  }
  if (position != data_size) {
    throw WeightError(fmt::format("{}: {} bytes after the last tensor{} belong to none", file, data_size - position,
                                  previous ? " " + shown(previous->name) : ""));
  }
}

std::string_view header_text(std::string_view bytes, uint64_t file_size, const std::string& file) {
  if (bytes.size() < kLengthBytes || file_size < kLengthBytes) {
    throw WeightError(fmt::format("{}: {} bytes are too few for a safetensors file", file, file_size));
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxSafetensorsHeaderBytes) {
    throw WeightError(fmt::format("{}: a header of {} bytes, the limit is {} (is this a safetensors file?)", file,
                                  length, kMaxSafetensorsHeaderBytes));
  }
  if (length > std::min<uint64_t>(bytes.size(), file_size) - kLengthBytes) {
    throw WeightError(fmt::format("{}: a header of {} bytes goes beyond the file's {} (is the file complete?)", file,
                                  length, file_size));
  }
  std::string_view text = bytes.substr(kLengthBytes, static_cast<size_t>(length));
  if (!text.starts_with('{')) throw WeightError(fmt::format("{}: the header does not begin with '{{'", file));
  // The parser takes a zero byte for the end of the text and would not look at what follows.
  if (size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw WeightError(fmt::format("{}: the header is not valid JSON at its byte {}", file, zero + 1));
  }
  return text;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view bytes, uint64_t file_size, const std::string& file) {
  const std::string_view text = header_text(bytes, file_size, file);
  SafetensorsHeader header;
  HeaderReader reader(file, header);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);

  const uint64_t data_begin = kLengthBytes + text.size();
  check_layout(header.tensors, file_size - data_begin, file);
  for (SafetensorsEntry& entry : header.tensors) {
    entry.begin += data_begin;
    entry.end += data_begin;
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.name < b.name; });
  return header;
}

}  // namespace strobe::weights
