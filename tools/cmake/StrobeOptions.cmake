# Options, warnings and the two functions that every layer's CMakeLists.txt uses.

set(STROBE_CUDA AUTO CACHE STRING "CUDA device support: AUTO, ON or OFF (AUTO: ON when LibTorch brings its CUDA set and nvcc is here)")
set(STROBE_VIDEO AUTO CACHE STRING "Video files (FFmpeg and OpenCV): AUTO, ON or OFF")
set(STROBE_SANITIZE "" CACHE STRING "Sanitizers for our own code: address,undefined or thread")
option(STROBE_TESTS "Build the tests" ON)
option(STROBE_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
option(STROBE_WERROR "Treat warnings as errors" OFF)
option(STROBE_DCHECKS "Keep STROBE_DCHECK in hot loops" OFF)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# -O2: the heavy arithmetic is in LibTorch and in the kernels, which set their own flags.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# By hand: CMake would give programs -fPIE and libraries -fPIC, and the precompiled header could serve only one.
add_compile_options(-fPIC)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)

find_program(STROBE_CCACHE ccache)
if(STROBE_CCACHE)
  # A precompiled header needs both settings to be cached.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${STROBE_CCACHE})
endif()

add_library(strobe_warnings INTERFACE)
target_compile_options(strobe_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                                                 -Wno-missing-field-initializers
                                                 # g++ 12 sees overruns in its own std::string.
                                                 -Wno-array-bounds -Wno-stringop-overflow -Wno-restrict -Wno-maybe-uninitialized)
if(STROBE_WERROR)
  target_compile_options(strobe_warnings INTERFACE -Werror)
endif()
if(STROBE_DCHECKS)
  target_compile_definitions(strobe_warnings INTERFACE STROBE_DCHECKS=1)
endif()
if(STROBE_SANITIZE)
  # The vptr check needs run-time type information of LibTorch's hidden classes.
  target_compile_options(strobe_warnings INTERFACE -fsanitize=${STROBE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize=vptr
                                                   -fno-sanitize-recover=undefined)
  target_link_options(strobe_warnings INTERFACE -fsanitize=${STROBE_SANITIZE})
endif()

# strobe_add_layer(NAME DIRS <dir>... LINK <targets>...): a static library of every source in the folders (not below).
# Sources are found by pattern, so that a new method is a file and a row in its folder's .inc list and nothing else;
# the meta test checks that rows and files agree.
function(strobe_add_layer name)
  cmake_parse_arguments(ARG "" "" "DIRS;LINK;PRIVATE_LINK" ${ARGN})
  set(sources)
  foreach(dir IN LISTS ARG_DIRS)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cpp)
    list(APPEND sources ${found})
  endforeach()
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${ARG_LINK})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  strobe_configure_target(${name})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
endfunction()

# C++20, our include root, our warnings and the shared precompiled header.
function(strobe_configure_target name)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE strobe_warnings)
  if(name STREQUAL strobe_core)
    target_precompile_headers(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src/core/torch.h)
  else()
    target_precompile_headers(${name} REUSE_FROM strobe_core)
  endif()
endfunction()

macro(strobe_find_video)
  set(STROBE_HAS_VIDEO OFF)
  if(NOT STROBE_VIDEO STREQUAL "OFF")
    set(strobe_required)
    if(STROBE_VIDEO STREQUAL "ON")
      set(strobe_required REQUIRED)
    endif()
    pkg_check_modules(FFmpeg ${strobe_required} IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
    find_package(OpenCVModules ${strobe_required})
    if(FFmpeg_FOUND AND OpenCVModules_FOUND)
      set(STROBE_HAS_VIDEO ON)
    endif()
  endif()
endmacro()

function(strobe_print_summary)
  message(STATUS "strobe ${PROJECT_VERSION}")
  message(STATUS "  LibTorch   ${LibTorch_VERSION} at ${LibTorch_DIR_FOUND}")
  message(STATUS "  CUDA       ${STROBE_CUDA} -> ${STROBE_HAS_CUDA}")
  message(STATUS "  video      ${STROBE_VIDEO} -> ${STROBE_HAS_VIDEO}")
  message(STATUS "  tests      ${STROBE_TESTS}, fuzzing ${STROBE_FUZZ}, sanitizers '${STROBE_SANITIZE}'")
endfunction()
