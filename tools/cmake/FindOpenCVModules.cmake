# OpenCV's core, imgproc and imgcodecs as the target OpenCVModules::OpenCVModules.
#
# Headers and libraries are looked for directly: Debian keeps OpenCV's own CMake package in libopencv-dev, which pulls in
# a hundred packages (VTK, MPI ...) for the three modules that are used here.
#
# Defines  OpenCVModules_FOUND, OpenCVModules_VERSION.

find_path(OpenCVModules_INCLUDE_DIR opencv2/core.hpp PATH_SUFFIXES opencv4)
set(strobe_opencv_libraries)
foreach(module core imgproc imgcodecs)
  find_library(OpenCVModules_${module}_LIBRARY opencv_${module})
  list(APPEND strobe_opencv_libraries OpenCVModules_${module}_LIBRARY)
endforeach()
if(OpenCVModules_INCLUDE_DIR)
  set(strobe_opencv_header ${OpenCVModules_INCLUDE_DIR}/opencv2/core/version.hpp)
  set(OpenCVModules_VERSION)
  foreach(part MAJOR MINOR REVISION)
    file(STRINGS ${strobe_opencv_header} strobe_opencv_line REGEX "#define CV_VERSION_${part} ")
    string(REGEX MATCH "[0-9]+" strobe_opencv_number "${strobe_opencv_line}")
    list(APPEND OpenCVModules_VERSION ${strobe_opencv_number})
  endforeach()
  list(JOIN OpenCVModules_VERSION "." OpenCVModules_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  OpenCVModules
  REQUIRED_VARS OpenCVModules_INCLUDE_DIR ${strobe_opencv_libraries}
  VERSION_VAR OpenCVModules_VERSION
  REASON_FAILURE_MESSAGE "on Debian: libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev")

if(OpenCVModules_FOUND AND NOT TARGET OpenCVModules::OpenCVModules)
  add_library(OpenCVModules::OpenCVModules INTERFACE IMPORTED)
  target_include_directories(OpenCVModules::OpenCVModules SYSTEM INTERFACE ${OpenCVModules_INCLUDE_DIR})
  foreach(library IN LISTS strobe_opencv_libraries)
    target_link_libraries(OpenCVModules::OpenCVModules INTERFACE ${${library}})
  endforeach()
endif()
mark_as_advanced(OpenCVModules_INCLUDE_DIR ${strobe_opencv_libraries})
