#include "attention/pattern_cache.h"

#include "core/torch.h"

namespace strobe::attention {
namespace {

constexpr int64_t kEntryBytes = 512;  // of the bookkeeping around a layout

}  // namespace

const PatternCache::Entry* PatternCache::find(const std::string& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, found->second);
  return &found->second->entry;
}

void PatternCache::erase(std::list<Slot>::iterator slot) {
  bytes_ -= slot->bytes;
  entries_.erase(slot->key);
  slots_.erase(slot);
}

void PatternCache::put(const std::string& key, Entry entry) {
  if (const auto found = entries_.find(key); found != entries_.end()) erase(found->second);
  const int64_t bytes = kEntryBytes + (entry.plan.layout ? entry.plan.layout->bytes() : 0);
  if (bytes > max_bytes_) return;
  while (bytes_ + bytes > max_bytes_) {
    erase(std::prev(slots_.end()));
    ++counts_.evictions;
  }
  slots_.push_front({.key = key, .entry = std::move(entry), .bytes = bytes});
  entries_[key] = slots_.begin();
  bytes_ += bytes;
}

}  // namespace strobe::attention
