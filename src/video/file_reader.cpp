// Frames of a video file through FFmpeg's demuxers and decoders.
#include <cstring>

#include "core/error.h"
#include "core/log.h"
#include "core/torch.h"
#include "video/colour.h"
#include "video/readers.h"

namespace strobe::video {
namespace {

// Bounds what a damaged header can make a decoder allocate.
constexpr int64_t kMostPixels = int64_t{1} << 27;
// Failed calls in a row, without a frame, after which a stream counts as ended.
constexpr int kMostFailures = 1000;

// The container with its header read, and no more of it.
AvPtr<AVFormatContext> open_container(const std::filesystem::path& path) {
  quiet_ffmpeg();
  take_log();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw IoError(fmt::format("{}: {}", path.string(), std::strerror(error ? error.value() : ENOENT)));
  }
  AvDictionary dictionary;
  // A play list must not make us read from the network.
  dictionary.set("protocol_whitelist", "file");
  const std::string url = "file:" + path.string();
  AVFormatContext* context = nullptr;
  check_av_io(avformat_open_input(&context, url.c_str(), nullptr, dictionary.get()),
              path.string() + ": not a video that can be read");
  return AvPtr<AVFormatContext>(context);
}

class FileReader final : public VideoReader {
 public:
  explicit FileReader(const std::filesystem::path& path)
      : path_(path), context_(open_container(path)), packet_(allocate_packet()) {
    open_stream();
    read_info();
  }

  const VideoInfo& info() const override { return info_; }

  at::Tensor read(int64_t max_frames) override {
    STROBE_CHECK(max_frames > 0, "VideoReader: max_frames: expected at least 1, got {}", max_frames);
    std::vector<at::Tensor> frames;
    while (next_ && static_cast<int64_t>(frames.size()) < max_frames) {
      frames.push_back(to_tensor(*next_));
      next_ = decode_next();
    }
    if (frames.empty()) return {};
    return at::stack(frames);
  }

 private:
  void open_stream() {
    check(avformat_find_stream_info(context_.get(), nullptr), "avformat_find_stream_info");
    const int index = av_find_best_stream(context_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (index < 0) throw IoError(fmt::format("{}: no video stream{}", path_.string(), take_log()));
    for (unsigned i = 0; i < context_->nb_streams; ++i) {
      if (static_cast<int>(i) != index) context_->streams[i]->discard = AVDISCARD_ALL;
    }
    stream_ = context_->streams[index];
    const char* codec = avcodec_get_name(stream_->codecpar->codec_id);
    const AVCodec* decoder = avcodec_find_decoder(stream_->codecpar->codec_id);
    if (!decoder) throw UnsupportedError(fmt::format("{}: this FFmpeg has no decoder for {}", path_.string(), codec));
    decoder_.reset(avcodec_alloc_context3(decoder));
    if (!decoder_) check(AVERROR(ENOMEM), "avcodec_alloc_context3");
    check(avcodec_parameters_to_context(decoder_.get(), stream_->codecpar), "avcodec_parameters_to_context");
    decoder_->thread_count = 0;
    decoder_->max_pixels = kMostPixels;
    check(avcodec_open2(decoder_.get(), decoder, nullptr), "avcodec_open2");
    info_.codec = codec;
  }

  void read_info() {
    const AVRational rate = av_guess_frame_rate(context_.get(), stream_, nullptr);
    if (rate.num > 0 && rate.den > 0) info_.fps = {rate.num, rate.den};
    const AVDictionaryEntry* entry = nullptr;
    while ((entry = av_dict_get(context_->metadata, "", entry, AV_DICT_IGNORE_SUFFIX))) {
      std::string key = entry->key;
      for (char& c : key) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      info_.metadata[key] = entry->value;
    }
    next_ = decode_next();
    if (!next_) throw IoError(fmt::format("{}: breaks off before its first frame{}", path_.string(), take_log()));
    info_.width = next_->width;
    info_.height = next_->height;
  }

  // Null at the end. Damaged packets are skipped, as players do.
  AvPtr<AVFrame> decode_next() {
    AvPtr<AVFrame> frame(av_frame_alloc());
    if (!frame) check(AVERROR(ENOMEM), "av_frame_alloc");
    int failures = 0;
    while (true) {
      const int code = avcodec_receive_frame(decoder_.get(), frame.get());
      if (code >= 0 && frame->width > 0 && frame->height > 0) return frame;
      if (code == AVERROR_EOF) break;
      if (code == AVERROR(EAGAIN)) {
        feed();
      } else if (code < 0) {
        ++damaged_;
        // A decoder that neither takes nor gives anything would keep us here.
        if (++failures > kMostFailures) break;
      }
    }
    if (damaged_ > 0) {
      log_warning("{}: {} damaged packets were left out{}", path_.string(), damaged_, take_log());
      damaged_ = 0;
    }
    return nullptr;
  }

  void feed() {
    while (true) {
      const int code = av_read_frame(context_.get(), packet_.get());
      if (code < 0) {
        if (code != AVERROR_EOF) ++damaged_;
        is_flushing_ = true;
        avcodec_send_packet(decoder_.get(), nullptr);
        return;
      }
      const bool is_ours = packet_->stream_index == stream_->index;
      const int sent = is_ours ? avcodec_send_packet(decoder_.get(), packet_.get()) : 0;
      av_packet_unref(packet_.get());
      if (sent < 0) ++damaged_;
      if (is_ours && sent >= 0) return;
    }
  }

  at::Tensor to_tensor(const AVFrame& frame) {
    if (frame.width != info_.width || frame.height != info_.height) {
      throw IoError(fmt::format("{}: changes its size from {}x{} to {}x{}", path_.string(), info_.width, info_.height,
                                frame.width, frame.height));
    }
    if (!rgb_) rgb_ = allocate_frame(AV_PIX_FMT_RGB24, frame.width, frame.height);
    converter_.to_rgb(frame, *rgb_);
    at::Tensor result = at::empty({info_.height, info_.width, 3}, at::kByte);
    auto* pixels = result.data_ptr<uint8_t>();
    const size_t row_bytes = static_cast<size_t>(info_.width) * 3;
    for (int64_t row = 0; row < info_.height; ++row) {
      std::memcpy(pixels + static_cast<size_t>(row) * row_bytes, rgb_->data[0] + row * rgb_->linesize[0], row_bytes);
    }
    return result;
  }

  void check(int code, const char* what) const {
    if (code < 0) check_av_io(code, fmt::format("{}: {}", path_.string(), what));
  }

  std::filesystem::path path_;
  AvPtr<AVFormatContext> context_;
  AVStream* stream_ = nullptr;
  AvPtr<AVCodecContext> decoder_;
  AvPtr<AVPacket> packet_;
  AvPtr<AVFrame> rgb_, next_;
  ColourConverter converter_;
  VideoInfo info_;
  int damaged_ = 0;
  bool is_flushing_ = false;
};

}  // namespace

std::unique_ptr<VideoReader> make_file_reader(const std::filesystem::path& path) {
  return std::make_unique<FileReader>(path);
}

std::string read_file_comment(const std::filesystem::path& path) {
  const AvPtr<AVFormatContext> context = open_container(path);
  // Containers without a header name their streams only further on.
  if (context->ctx_flags & AVFMTCTX_NOHEADER) {
    check_av_io(avformat_find_stream_info(context.get(), nullptr), path.string() + ": avformat_find_stream_info");
  }
  bool has_video = false;
  for (unsigned i = 0; i < context->nb_streams; ++i) {
    has_video = has_video || context->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO;
  }
  if (!has_video) throw IoError(fmt::format("{}: no video stream{}", path.string(), take_log()));
  // Found whatever its case, in which containers differ.
  const AVDictionaryEntry* entry = av_dict_get(context->metadata, "comment", nullptr, 0);
  return entry ? entry->value : "";
}

}  // namespace strobe::video
