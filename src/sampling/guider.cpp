#include "sampling/guider.h"

#include "core/error.h"
#include "core/nearest.h"
#include "core/torch.h"

namespace strobe::sampling {

std::vector<std::string> guider_names() {
  return {
#define STROBE_GUIDER(name) #name,
#include "sampling/guiders.inc"
#undef STROBE_GUIDER
  };
}

std::unique_ptr<Guider> make_guider(const std::string& name, const GuiderOptions& options) {
#define STROBE_GUIDER(row) \
  if (name == #row) return make_##row##_guider(options);
#include "sampling/guiders.inc"
#undef STROBE_GUIDER
  throw ConfigError(unknown_name_message("guider", name, guider_names()));
}

}  // namespace strobe::sampling
