// The environment that makes a program fail or end at one chosen event on its files (tests/support/fault_preload.c).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/process.h"

namespace strobe::test {

struct Fault {
  std::string kind;  // kill, kill-after, kill-half, enospc, eio
  size_t at = 0;     // event, from 1
};

// `watched`: the folder whose files count.
ProcessOptions with_fault(const std::filesystem::path& watched, const Fault& fault);

// Counts only; the file then holds the events.
ProcessOptions with_event_count(const std::filesystem::path& watched, const std::filesystem::path& report);

// "write .clip.mp4.12-0.part" and so on, in order.
std::vector<std::string> read_events(const std::filesystem::path& report);

// At most `count` events of `total` with the first and the last.
std::vector<size_t> spread(size_t total, size_t count);

}  // namespace strobe::test
