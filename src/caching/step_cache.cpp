#include "caching/step_cache.h"

#include "core/error.h"
#include "core/nearest.h"

namespace strobe::caching {

#define STROBE_STEP_CACHE(name) std::unique_ptr<StepCache> make_##name##_step_cache();
#include "caching/step_caches.inc"
#undef STROBE_STEP_CACHE

std::vector<std::string> step_cache_names() {
  return {
#define STROBE_STEP_CACHE(name) #name,
#include "caching/step_caches.inc"
#undef STROBE_STEP_CACHE
  };
}

std::unique_ptr<StepCache> make_step_cache(const std::string& name) {
#define STROBE_STEP_CACHE(row) \
  if (name == #row) return make_##row##_step_cache();
#include "caching/step_caches.inc"
#undef STROBE_STEP_CACHE
  throw ConfigError(unknown_name_message("step cache", name, step_cache_names()));
}

}  // namespace strobe::caching
