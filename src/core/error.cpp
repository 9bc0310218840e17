#include "core/error.h"

#include <cstring>

namespace strobe {

void throw_system(std::string_view call, const std::string& path, int code) {
  throw IoError(fmt::format("{}: {}: {}", path, call, std::strerror(code)));
}

namespace detail {

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

}  // namespace detail
}  // namespace strobe
