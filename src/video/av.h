// FFmpeg's C structs with owners, and its errors as text.
//
// Private to this folder: the public headers know nothing of FFmpeg. The library's own log never reaches the terminal;
// the error lines since the last `take_log` are kept (the last 2 KiB) and go into our messages.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <string>
#include <string_view>

namespace strobe::video {

struct AvDeleter {
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
  void operator()(SwsContext* context) const { sws_freeContext(context); }
  void operator()(AVFormatContext* input) const { avformat_close_input(&input); }
};
template <class T>
using AvPtr = std::unique_ptr<T, AvDeleter>;

// Options for one call; what FFmpeg did not take is left over.
class AvDictionary {
 public:
  AvDictionary() = default;
  AvDictionary(const AvDictionary&) = delete;
  AvDictionary& operator=(const AvDictionary&) = delete;
  ~AvDictionary() { av_dict_free(&entries_); }
  void set(const std::string& key, const std::string& value) { av_dict_set(&entries_, key.c_str(), value.c_str(), 0); }
  AVDictionary** get() { return &entries_; }
  std::string first_key() const;  // empty when nothing is left

 private:
  AVDictionary* entries_ = nullptr;
};

// Redirects FFmpeg's log; called by whatever touches FFmpeg first.
void quiet_ffmpeg();

// The error lines since the last call, as " (line; line)", or empty.
std::string take_log();

// "No space left on device" and the like, with the log's lines.
std::string av_error_text(int code);

// Throws IoError "<what>: <text>" if `code` is negative.
void check_av_io(int code, std::string_view what);

AvPtr<AVFrame> allocate_frame(AVPixelFormat format, int width, int height);
AvPtr<AVPacket> allocate_packet();

}  // namespace strobe::video
