// One encoded file: RGB frames to the encoder's format, packets to the muxer, a temporary file to its name.
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/torch.h"
#include "video/colour.h"
#include "video/encoders.h"
#include "video/packet_spool.h"
#include "video/writers.h"

namespace strobe::video {
namespace {

constexpr size_t kLargestComment = size_t{1} << 20;

bool is_mp4(const AVOutputFormat* format) { return std::string_view(format->name) == "mp4"; }

// The one stream and the header; a negative code of FFmpeg if the container refuses them.
int write_header(AVFormatContext& context, const AVCodecContext& encoder) {
  AVStream* stream = avformat_new_stream(&context, nullptr);
  if (!stream) return AVERROR(ENOMEM);
  if (const int code = avcodec_parameters_from_context(stream->codecpar, &encoder); code < 0) return code;
  if (is_mp4(context.oformat) && encoder.codec_id == AV_CODEC_ID_HEVC) {
    stream->codecpar->codec_tag = MKTAG('h', 'v', 'c', '1');
  }
  stream->time_base = encoder.time_base;
  stream->avg_frame_rate = stream->r_frame_rate = encoder.framerate;
  stream->sample_aspect_ratio = encoder.sample_aspect_ratio;
  AvDictionary dictionary;
  if (is_mp4(context.oformat)) dictionary.set("movflags", "+faststart");
  return avformat_write_header(&context, dictionary.get());
}

// The container's refusal of a stream, in memory: before a frame is encoded, where the header itself is written last.
void check_header(const std::filesystem::path& target, const AVOutputFormat* format, const AVCodecContext& encoder) {
  AVFormatContext* context = nullptr;
  int code = avformat_alloc_output_context2(&context, const_cast<AVOutputFormat*>(format), nullptr, nullptr);
  if (code >= 0) code = avio_open_dyn_buf(&context->pb);
  if (code >= 0) {
    code = write_header(*context, encoder);
    uint8_t* bytes = nullptr;
    avio_close_dyn_buf(std::exchange(context->pb, nullptr), &bytes);
    av_free(bytes);
  }
  avformat_free_context(context);
  check_av_io(code, target.string() + ": avformat_write_header");
}

// The muxer and its open file; the file is removed unless it was published.
class Muxer {
 public:
  Muxer(const std::filesystem::path& target, const AVOutputFormat* format)
      : target_(target), temporary_(temporary_beside(target)) {
    // "file:" keeps FFmpeg from reading a colon in the name as a protocol.
    const std::string url = "file:" + temporary_.string();
    check(avformat_alloc_output_context2(&context_, const_cast<AVOutputFormat*>(format), nullptr, url.c_str()), "open");
    if (const int code = avio_open(&context_->pb, url.c_str(), AVIO_FLAG_WRITE); code < 0) {
      avformat_free_context(context_);
      check(code, "open");
    }
  }
  Muxer(const Muxer&) = delete;
  Muxer& operator=(const Muxer&) = delete;
  ~Muxer() {
    avio_closep(&context_->pb);
    avformat_free_context(context_);
    std::error_code ignored;
    if (!is_published_) std::filesystem::remove(temporary_, ignored);
  }

  // MP4 stores it with the trailer, the others with the header.
  void set_comment(const std::string& text) {
    // An empty value removes the tag.
    check(av_dict_set(&context_->metadata, "comment", text.empty() ? nullptr : text.c_str(), 0), "av_dict_set");
  }

  void start(const AVCodecContext& encoder) {
    encoder_time_base_ = encoder.time_base;
    check(write_header(*context_, encoder), "avformat_write_header");
    check(context_->pb->error, "write");
  }

  void write(AVPacket& packet) {
    AVStream* stream = context_->streams[0];
    if (packet.duration == 0) packet.duration = 1;
    av_packet_rescale_ts(&packet, encoder_time_base_, stream->time_base);
    packet.stream_index = stream->index;
    check(av_interleaved_write_frame(context_, &packet), "write");
    check(context_->pb->error, "write");
  }

  void publish(Replace replace) {
    check(av_write_trailer(context_), "av_write_trailer");
    avio_flush(context_->pb);
    check(context_->pb->error, "write");
    check(avio_closep(&context_->pb), "close");
    publish_file(temporary_, target_, replace);
    is_published_ = true;
  }

 private:
  void check(int code, const char* call) const {
    if (code < 0) check_av_io(code, fmt::format("{}: {}", target_.string(), call));
  }

  std::filesystem::path target_, temporary_;
  AVFormatContext* context_ = nullptr;
  AVRational encoder_time_base_ = {0, 1};
  bool is_published_ = false;
};

class FileWriter final : public VideoWriter {
 public:
  FileWriter(const std::filesystem::path& path, const VideoOptions& options)
      : path_(path),
        options_(options),
        plan_(plan_encoder(path, options)),
        encoder_(open_encoder(plan_, options)),
        packet_(allocate_packet()),
        rgb_(allocate_frame(AV_PIX_FMT_RGB24, encoder_->width, encoder_->height)),
        muxer_(std::make_unique<Muxer>(path, plan_.container)) {
    if (is_mp4(plan_.container)) {
      muxer_->start(*encoder_);
    } else {
      check_header(path, plan_.container, *encoder_);
      spool_ = std::make_unique<PacketSpool>(path);
    }
  }

  void write(const at::Tensor& frames) override {
    STROBE_CHECK(muxer_ && !has_failed_, "VideoWriter: {}: written to after close or an error", path_.string());
    const at::Tensor bytes = checked_frames(frames, options_);
    has_failed_ = true;
    for (int64_t i = 0; i < bytes.size(0); ++i) write_frame(bytes[i].data_ptr<uint8_t>());
    has_failed_ = false;
  }

  void set_comment(const std::string& text) override {
    STROBE_CHECK(muxer_, "VideoWriter: {}: comment after close", path_.string());
    STROBE_CHECK(text.size() <= kLargestComment && text.find('\0') == std::string::npos,
                 "VideoWriter: {}: comment: expected at most {} bytes without NUL, got {}", path_.string(),
                 kLargestComment, text.size());
    muxer_->set_comment(text);
  }

  void close() override {
    if (!muxer_) return;
    STROBE_CHECK(!has_failed_, "VideoWriter: {}: closed after an error", path_.string());
    STROBE_CHECK(frames_ > 0, "VideoWriter: {}: closed without a frame", path_.string());
    has_failed_ = true;
    encode(nullptr);
    if (spool_) {
      muxer_->start(*encoder_);
      while (spool_->next(*packet_)) muxer_->write(*packet_);
    }
    muxer_->publish(replace_of(options_));
    has_failed_ = false;
    muxer_.reset();
    spool_.reset();
  }

  int64_t frames_written() const override { return frames_; }
  std::string encoder() const override { return plan_.description; }

 private:
  void write_frame(const uint8_t* pixels) {
    const size_t row_bytes = static_cast<size_t>(options_.width) * 3;
    // swscale reads and writes whole vectors, past the end of rows that are not padded.
    for (int64_t row = 0; row < options_.height; ++row) {
      std::memcpy(rgb_->data[0] + row * rgb_->linesize[0], pixels + static_cast<size_t>(row) * row_bytes, row_bytes);
    }
    // A new one each time: the encoder may keep the last ones.
    AvPtr<AVFrame> frame = allocate_frame(plan_.pix_fmt, encoder_->width, encoder_->height);
    frame->colorspace = encoder_->colorspace;
    frame->color_range = encoder_->color_range;
    frame->color_primaries = encoder_->color_primaries;
    frame->color_trc = encoder_->color_trc;
    frame->chroma_location = encoder_->chroma_sample_location;
    frame->quality = encoder_->global_quality;
    converter_.from_rgb(*rgb_, *frame);
    frame->pts = frames_;
    encode(frame.get());
    ++frames_;
  }

  // Null flushes.
  void encode(const AVFrame* frame) {
    check_av_io(avcodec_send_frame(encoder_.get(), frame), path_.string() + ": avcodec_send_frame");
    while (true) {
      const int code = avcodec_receive_packet(encoder_.get(), packet_.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      check_av_io(code, path_.string() + ": avcodec_receive_packet");
      spool_ ? spool_->append(*packet_) : muxer_->write(*packet_);
      av_packet_unref(packet_.get());
    }
  }

  std::filesystem::path path_;
  VideoOptions options_;
  EncoderPlan plan_;
  AvPtr<AVCodecContext> encoder_;
  AvPtr<AVPacket> packet_;
  AvPtr<AVFrame> rgb_;
  ColourConverter converter_;
  std::unique_ptr<Muxer> muxer_;
  std::unique_ptr<PacketSpool> spool_;  // where the header comes last
  int64_t frames_ = 0;
  bool has_failed_ = false;
};

}  // namespace

void check_file_writer(const std::filesystem::path& path, const VideoOptions& options) {
  const EncoderPlan plan = plan_encoder(path, options);
  check_folder_writable(folder_of(path));
  if (std::filesystem::is_directory(path)) {
    throw IoError(fmt::format("{}: {}", path.string(), std::strerror(EISDIR)));
  }
  open_encoder(plan, options);
}

std::unique_ptr<VideoWriter> make_file_writer(const std::filesystem::path& path, const VideoOptions& options) {
  return std::make_unique<FileWriter>(path, options);
}

}  // namespace strobe::video
