#include "weights/zip_directory.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace strobe::weights {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocator64Signature = 0x07064b50;
constexpr size_t kLocalBytes = 30;
constexpr size_t kCentralBytes = 46;
constexpr size_t kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kLocator64Bytes = 20;
constexpr size_t kMaxCommentBytes = 0xFFFF;
constexpr uint16_t kExtra64 = 1;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // "the value is in the zip64 field"

struct Directory {
  uint64_t begin = 0;
  uint64_t size = 0;
  uint64_t count = 0;
};

class ZipReader {
 public:
  ZipReader(std::string_view archive, const std::string& file) : archive_(archive), file_(file) {}

  std::map<std::string_view, std::string_view> read() const {
    const Directory directory = find_directory();
    const std::string_view records = slice(directory.begin, directory.size, "the directory");
    std::map<std::string_view, std::string_view> entries;
    size_t at = 0;
    for (uint64_t i = 0; i < directory.count; ++i) {
      if (records.size() - at < kCentralBytes || number<uint32_t>(records, at) != kCentralSignature) {
        fail("the directory is damaged");
      }
      const size_t name_bytes = number<uint16_t>(records, at + 28);
      const size_t extra_bytes = number<uint16_t>(records, at + 30);
      const size_t record_bytes = kCentralBytes + name_bytes + extra_bytes + number<uint16_t>(records, at + 32);
      if (record_bytes > records.size() - at) fail("the directory is damaged");
      const std::string_view record = records.substr(at, record_bytes);
      const std::string_view name = record.substr(kCentralBytes, name_bytes);
      if (!entries.emplace(name, entry_bytes(record, name, extra_bytes, directory.begin)).second) {
        fail(name, "the entry stands twice");
      }
      at += record_bytes;
    }
    return entries;
  }

 private:
  [[noreturn]] void fail(std::string_view message) const { throw WeightError(fmt::format("{}: {}", file_, message)); }
  [[noreturn]] void fail(std::string_view entry, std::string_view message) const {
    throw WeightError(fmt::format("{}: {}: {}", file_, entry.substr(0, 200), message));
  }

  // The caller has checked that the bytes are there.
  template <class T>
  static T number(std::string_view bytes, size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    return value;
  }

  std::string_view slice(uint64_t begin, uint64_t size, std::string_view what) const {
    if (begin > archive_.size() || size > archive_.size() - begin) {
      fail(what, "lies outside the file (is the file complete?)");
    }
    return archive_.substr(static_cast<size_t>(begin), static_cast<size_t>(size));
  }

  size_t find_end() const {
    if (archive_.size() >= kEndBytes) {
      const size_t last = archive_.size() - kEndBytes;
      for (size_t comment = 0; comment <= std::min(last, kMaxCommentBytes); ++comment) {
        const size_t at = last - comment;
        if (number<uint32_t>(archive_, at) == kEndSignature && number<uint16_t>(archive_, at + 20) == comment)
          return at;
      }
    }
    fail("not a zip archive (a .pth of PyTorch before 1.6, or an incomplete file?)");
  }

  Directory find_directory() const {
    const size_t end = find_end();
    Directory directory{number<uint32_t>(archive_, end + 16), number<uint32_t>(archive_, end + 12),
                        number<uint16_t>(archive_, end + 10)};
    if (end >= kLocator64Bytes && number<uint32_t>(archive_, end - kLocator64Bytes) == kLocator64Signature) {
      const uint64_t at = number<uint64_t>(archive_, end - kLocator64Bytes + 8);
      const std::string_view record = slice(at, kEnd64Bytes, "the zip64 end of the directory");
      if (number<uint32_t>(record, 0) != kEnd64Signature) fail("the zip64 end of the directory is damaged");
      directory = {number<uint64_t>(record, 48), number<uint64_t>(record, 40), number<uint64_t>(record, 32)};
    }
    return directory;
  }

  // The three values of a central record that zip64 may hold elsewhere, in the order that it prescribes.
  struct Extent {
    uint64_t size = 0;
    uint64_t stored_size = 0;
    uint64_t begin = 0;
  };

  Extent read_extent(std::string_view record, std::string_view name, size_t extra_bytes) const {
    Extent extent{number<uint32_t>(record, 24), number<uint32_t>(record, 20), number<uint32_t>(record, 42)};
    std::string_view extra = record.substr(kCentralBytes + name.size(), extra_bytes);
    std::string_view field;
    while (extra.size() >= 4) {
      const uint16_t id = number<uint16_t>(extra, 0);
      const size_t size = number<uint16_t>(extra, 2);
      if (size > extra.size() - 4) fail(name, "its extra field is damaged");
      if (id == kExtra64) field = extra.substr(4, size);
      extra.remove_prefix(4 + size);
    }
    for (uint64_t* value : {&extent.size, &extent.stored_size, &extent.begin}) {
      if (*value != kIn64) continue;
      if (field.size() < 8) fail(name, "its zip64 field is too short");
      *value = number<uint64_t>(field, 0);
      field.remove_prefix(8);
    }
    return extent;
  }

  std::string_view entry_bytes(std::string_view record, std::string_view name, size_t extra_bytes,
                               uint64_t directory_begin) const {
    if (number<uint16_t>(record, 8) & 1) fail(name, "the entry is encrypted");
    const uint16_t method = number<uint16_t>(record, 10);
    if (method != 0) fail(name, fmt::format("compressed (method {}); PyTorch stores entries as they are", method));
    const Extent extent = read_extent(record, name, extra_bytes);
    if (extent.size != extent.stored_size) fail(name, "stored, but with two different sizes");

    const std::string_view local = slice(extent.begin, kLocalBytes, name);
    if (number<uint32_t>(local, 0) != kLocalSignature) fail(name, "its local header is damaged");
    const uint64_t name_at = extent.begin + kLocalBytes;
    if (slice(name_at, number<uint16_t>(local, 26), name) != name) fail(name, "its local header has another name");
    const uint64_t begin = name_at + name.size() + number<uint16_t>(local, 28);
    const std::string_view bytes = slice(begin, extent.size, name);
    if (begin + extent.size > directory_begin) fail(name, "overlaps the directory");
    return bytes;
  }

  std::string_view archive_;
  const std::string& file_;
};

}  // namespace

std::map<std::string_view, std::string_view> read_zip_directory(std::string_view archive, const std::string& file) {
  return ZipReader(archive, file).read();
}

}  // namespace strobe::weights
