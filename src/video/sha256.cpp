#include "video/sha256.h"

#include "core/error.h"
#include "core/torch.h"

extern "C" {
#include <libavutil/mem.h>
#include <libavutil/sha.h>
}

namespace strobe::video {

struct Sha256::State {
  AVSHA* sha = av_sha_alloc();
  ~State() { av_free(sha); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (!state_->sha) throw IoError("av_sha_alloc: out of memory");
  av_sha_init(state_->sha, 256);
}

Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t bytes) {
  av_sha_update(state_->sha, static_cast<const uint8_t*>(data), bytes);
}

std::string Sha256::finish() {
  std::array<uint8_t, 32> digest{};
  av_sha_final(state_->sha, digest.data());
  av_sha_init(state_->sha, 256);
  std::string hex;
  for (const uint8_t byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

std::string sha256(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.finish();
}

}  // namespace strobe::video
