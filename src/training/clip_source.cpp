#include "training/clip_source.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/counter_random.h"
#include "core/error.h"
#include "core/parallel.h"
#include "training/sprites/caption.h"
#include "training/sprites/render.h"

namespace strobe::training {
namespace {

enum Stream : uint64_t { kKind = 1, kMoment, kWindow };

}  // namespace

uint64_t stage_seed(uint64_t seed, const std::string& stage) {
  uint64_t key = mix_bits(seed);
  for (const char c : stage) key = mix_bits(key ^ static_cast<uint8_t>(c));
  return key;
}

const ClipKind& kind_at(const std::vector<ClipKind>& kinds, uint64_t stage_seed, int64_t step) {
  STROBE_CHECK(!kinds.empty(), "training: a stage without clips");
  double sum = 0;
  for (const ClipKind& kind : kinds) sum += kind.share;
  double left = CounterRandom(stage_seed, static_cast<uint64_t>(step), kKind).uniform() * sum;
  for (const ClipKind& kind : kinds) {
    left -= kind.share;
    if (left < 0) return kind;
  }
  return kinds.back();
}

ClipBatch draw_clips(const ClipKind& kind, uint64_t stage_seed, int64_t first, int64_t count, sprites::Split split) {
  ClipBatch batch;
  batch.pixels = at::empty({count, 3, kind.frames, kind.height, kind.width}, at::kFloat);
  batch.captions.resize(static_cast<size_t>(count));
  float* const data = batch.pixels.mutable_data_ptr<float>();
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto index = static_cast<uint64_t>(first + i);
      sprites::ClipView view{.width = kind.width * kind.zoom, .height = kind.height * kind.zoom, .frames = kind.frames};
      if (kind.zoom > 1) {
        CounterRandom place(stage_seed, index, kWindow);
        const auto offset = [&](int64_t size) {
          return static_cast<int64_t>(place.below(static_cast<uint64_t>(size * (kind.zoom - 1) + 1)));
        };
        view.crop = {
            .left = offset(kind.width), .top = offset(kind.height), .width = kind.width, .height = kind.height};
      }
      if (kind.frames == 1) view.first_tau = view.last_tau = CounterRandom(stage_seed, index, kMoment).uniform();
      const sprites::ClipBuffer buffer = sprites::planes(data + i * 3 * kind.frames * kind.height * kind.width, view);
      if (kind.content == ClipKind::Content::kLeaves) {
        sprites::render_leaves(stage_seed, index, view, buffer);
      } else {
        const sprites::Scene scene = sprites::draw_scene(stage_seed, index, {.split = split});
        sprites::render(scene, view, buffer);
        batch.captions[static_cast<size_t>(i)] = sprites::caption(scene);
      }
    }
  });
  return batch;
}

}  // namespace strobe::training
