#include "core/error.h"

#include <string_view>

namespace strobe::detail {

void throw_check_failed(const char* condition, const char* file, int line, const std::string& message) {
  std::string_view path(file);
  // Messages must not depend on where the sources were when they were compiled.
  for (std::string_view root : {"/src/", "/pipelines/", "/kernels/", "/tools/", "/tests/"}) {
    if (size_t at = path.rfind(root); at != std::string_view::npos) {
      path.remove_prefix(at + 1);
      break;
    }
  }
  throw ShapeError(fmt::format("{} ({} at {}:{})", message, condition, path, line));
}

}  // namespace strobe::detail
