#include "video/packet_spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "core/output_file.h"
#include "core/torch.h"

namespace strobe::video {
namespace {

// One width throughout: no padding reaches the disk.
struct PacketHeader {
  int64_t pts, dts, duration, flags, size, num_side_data;
};
struct SideDataHeader {
  int64_t type, size;
};

void put(std::vector<uint8_t>& record, const void* data, size_t bytes) {
  const auto* first = static_cast<const uint8_t*>(data);
  record.insert(record.end(), first, first + bytes);
}

}  // namespace

PacketSpool::PacketSpool(const std::filesystem::path& target) : target_(target) {
  const std::filesystem::path name = temporary_beside(target);
  descriptor_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor_ < 0) throw_system("open", name, errno);
  ::unlink(name.c_str());
}

PacketSpool::~PacketSpool() { ::close(descriptor_); }

void PacketSpool::append(const AVPacket& packet) {
  const PacketHeader header = {.pts = packet.pts,
                               .dts = packet.dts,
                               .duration = packet.duration,
                               .flags = packet.flags,
                               .size = packet.size,
                               .num_side_data = packet.side_data_elems};
  record_.clear();
  put(record_, &header, sizeof header);
  put(record_, packet.data, static_cast<size_t>(packet.size));
  for (int i = 0; i < packet.side_data_elems; ++i) {
    const AVPacketSideData& side = packet.side_data[i];
    const SideDataHeader side_header = {.type = side.type, .size = static_cast<int64_t>(side.size)};
    put(record_, &side_header, sizeof side_header);
    put(record_, side.data, side.size);
  }
  write_all(descriptor_, record_.data(), record_.size(), target_);
  end_ += static_cast<int64_t>(record_.size());
}

bool PacketSpool::next(AVPacket& packet) {
  av_packet_unref(&packet);
  if (position_ == end_) return false;
  PacketHeader header{};
  read(&header, sizeof header);
  check_av_io(av_new_packet(&packet, static_cast<int>(header.size)), "av_new_packet");
  packet.pts = header.pts;
  packet.dts = header.dts;
  packet.duration = header.duration;
  packet.flags = static_cast<int>(header.flags);
  read(packet.data, static_cast<size_t>(header.size));
  for (int64_t i = 0; i < header.num_side_data; ++i) {
    SideDataHeader side{};
    read(&side, sizeof side);
    const auto bytes = static_cast<size_t>(side.size);
    uint8_t* data = av_packet_new_side_data(&packet, static_cast<AVPacketSideDataType>(side.type), bytes);
    if (!data) check_av_io(AVERROR(ENOMEM), "av_packet_new_side_data");
    read(data, bytes);
  }
  return true;
}

void PacketSpool::read(void* data, size_t bytes) {
  auto* next = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t count = ::pread(descriptor_, next, bytes, position_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system("read", target_, errno);
    if (count == 0) throw IoError(fmt::format("{}: read: file cut short", target_.string()));
    next += count;
    bytes -= static_cast<size_t>(count);
    position_ += count;
  }
}

}  // namespace strobe::video
