// Plans that can be made again, kept while they serve. Owned by the engine, never static.
//
// Contract  Bounded in bytes; the least recently used plan leaves first, and one larger than the bound is not kept.
//           Counts hits, misses (nothing kept) and refreshes (a kept plan was too old).
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <string>

#include "attention/pattern.h"

namespace strobe::attention {

struct CacheCounts {
  int64_t hits = 0;
  int64_t misses = 0;
  int64_t refreshes = 0;
  int64_t evictions = 0;
};

class PatternCache {
 public:
  struct Entry {
    AttentionPlan plan;
    int step = 0;        // at which it was planned
    int evaluation = 0;  // of that step
    Branch branch = Branch::kCond;
  };

  explicit PatternCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Null if there is none. Counts nothing: the engine decides whether the entry still serves.
  const Entry* find(const std::string& key);
  void put(const std::string& key, Entry entry);

  CacheCounts& counts() { return counts_; }
  const CacheCounts& counts() const { return counts_; }
  int64_t bytes() const { return bytes_; }
  int64_t max_bytes() const { return max_bytes_; }
  size_t size() const { return entries_.size(); }

 private:
  struct Slot {
    std::string key;
    Entry entry;
    int64_t bytes = 0;
  };
  void erase(std::list<Slot>::iterator slot);

  int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Slot> slots_;  // most recently used first
  std::map<std::string, std::list<Slot>::iterator> entries_;
  CacheCounts counts_;
};

}  // namespace strobe::attention
