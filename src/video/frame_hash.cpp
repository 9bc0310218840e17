#include "core/error.h"
#include "core/torch.h"
#include "video/video_reader.h"

extern "C" {
#include <libavutil/mem.h>
#include <libavutil/sha.h>
}

namespace strobe::video {

struct FrameHash::State {
  AVSHA* sha = av_sha_alloc();
  ~State() { av_free(sha); }
};

FrameHash::FrameHash() : state_(std::make_unique<State>()) {
  if (!state_->sha) throw IoError("av_sha_alloc: out of memory");
  av_sha_init(state_->sha, 256);
}

FrameHash::~FrameHash() = default;

void FrameHash::update(const at::Tensor& frames) {
  STROBE_CHECK(frames.defined() && frames.scalar_type() == at::kByte, "FrameHash: frames: expected uint8");
  const at::Tensor bytes = frames.to(at::kCPU).contiguous();
  av_sha_update(state_->sha, bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
}

std::string FrameHash::finish() {
  std::array<uint8_t, 32> digest{};
  av_sha_final(state_->sha, digest.data());
  av_sha_init(state_->sha, 256);
  std::string hex;
  for (uint8_t byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace strobe::video
