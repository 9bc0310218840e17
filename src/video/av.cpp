#include "video/av.h"

#include "core/error.h"
#include "core/torch.h"

namespace strobe::video {
namespace {

constexpr size_t kLogBytes = 2048;

struct LogBuffer {
  std::mutex mutex;
  std::string text;
};

// A function's own static: encoder threads may still log while the program ends.
LogBuffer& log_buffer() {
  static auto* buffer = new LogBuffer;
  return *buffer;
}

void collect_log(void* source, int level, const char* format, va_list arguments) {
  if (level > AV_LOG_ERROR) return;
  std::array<char, 512> line{};
  int print_prefix = 1;
  av_log_format_line2(source, level, format, arguments, line.data(), static_cast<int>(line.size()), &print_prefix);
  std::string text = line.data();
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (text.empty()) return;
  LogBuffer& buffer = log_buffer();
  const std::lock_guard lock(buffer.mutex);
  if (!buffer.text.empty()) buffer.text += "; ";
  buffer.text += text;
  if (buffer.text.size() > kLogBytes) buffer.text.erase(0, buffer.text.size() - kLogBytes);
}

[[noreturn]] void throw_out_of_memory(const char* what) {
  throw IoError(fmt::format("{}: {}", what, av_error_text(AVERROR(ENOMEM))));
}

}  // namespace

std::string AvDictionary::first_key() const {
  const AVDictionaryEntry* entry = av_dict_get(entries_, "", nullptr, AV_DICT_IGNORE_SUFFIX);
  return entry ? entry->key : "";
}

void quiet_ffmpeg() {
  static std::once_flag once;
  std::call_once(once, [] {
    av_log_set_level(AV_LOG_ERROR);
    av_log_set_callback(collect_log);
  });
}

std::string take_log() {
  LogBuffer& buffer = log_buffer();
  const std::lock_guard lock(buffer.mutex);
  std::string text = std::exchange(buffer.text, {});
  return text.empty() ? text : " (" + text + ")";
}

std::string av_error_text(int code) {
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
  av_strerror(code, text.data(), text.size());
  return text.data() + take_log();
}

void check_av_io(int code, std::string_view what) {
  if (code < 0) throw IoError(fmt::format("{}: {}", what, av_error_text(code)));
}

AvPtr<AVFrame> allocate_frame(AVPixelFormat format, int width, int height) {
  AvPtr<AVFrame> frame(av_frame_alloc());
  if (!frame) throw_out_of_memory("av_frame_alloc");
  frame->format = format;
  frame->width = width;
  frame->height = height;
  check_av_io(av_frame_get_buffer(frame.get(), 0), "av_frame_get_buffer");
  return frame;
}

AvPtr<AVPacket> allocate_packet() {
  AvPtr<AVPacket> packet(av_packet_alloc());
  if (!packet) throw_out_of_memory("av_packet_alloc");
  return packet;
}

}  // namespace strobe::video
