// Encoded packets on disk, in order, for containers whose header comes after the last of them is known.
//
// Contract  A nameless file in the target's folder: whatever ends the process, nothing of it stays. What comes back is
//           what went in: bytes, times, flags and side data. Memory does not depend on the number of packets.
// Errors    IoError with the target's path and the system's text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "video/av.h"

namespace strobe::video {

class PacketSpool {
 public:
  explicit PacketSpool(const std::filesystem::path& target);
  ~PacketSpool();
  PacketSpool(const PacketSpool&) = delete;
  PacketSpool& operator=(const PacketSpool&) = delete;

  void append(const AVPacket& packet);
  // The next packet from the first one on; false after the last.
  bool next(AVPacket& packet);

 private:
  void read(void* data, size_t bytes);

  std::filesystem::path target_;
  int descriptor_ = -1;
  int64_t end_ = 0, position_ = 0;
  std::vector<uint8_t> record_;
};

}  // namespace strobe::video
