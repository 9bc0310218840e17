#include "attention/backend.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/nearest.h"

namespace strobe::attention {

#define STROBE_BACKEND(name) BackendList make_##name##_backends();
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  const auto add = [&names](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
#define STROBE_BACKEND(row) \
  add(#row);                \
  for (const auto& backend : make_##row##_backends()) add(backend->name());
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND
  return names;
}

BackendList make_backends(const std::string& forced) {
  BackendList backends;
#define STROBE_BACKEND(row)                                                                                      \
  for (auto& backend : make_##row##_backends()) {                                                                \
    if (forced == "auto" || forced == #row || forced == backend->name()) backends.push_back(std::move(backend)); \
  }
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND
  if (backends.empty()) throw ConfigError(unknown_name_message("attention backend", forced, backend_names()));
  return backends;
}

const AttentionBackend& choose_backend(const BackendList& backends, const AttentionProblem& problem,
                                       std::string& reasons) {
  for (const auto& backend : backends) {
    const std::string refusal = backend->refusal(problem);
    if (refusal.empty()) return *backend;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", backend->name(), refusal);
  }
  throw UnsupportedError("no attention backend can do this: " + reasons);
}

}  // namespace strobe::attention
