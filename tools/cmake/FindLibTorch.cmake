# Imports LibTorch from its PyPI wheel (or any folder with lib/ and include/) as the target LibTorch::LibTorch.
#
# LibTorch's own package configuration demands the CUDA toolkit even for a CPU program and adds code-generation flags
# that newer nvcc versions refuse, hence this module.
#
# Reads    STROBE_TORCH (cache variable, else environment variable): the `torch` folder; default .deps/venv.
# Defines  LibTorch::LibTorch, LibTorch_VERSION, LibTorch_DIR_FOUND, STROBE_HAS_CUDA.

if(NOT STROBE_TORCH AND DEFINED ENV{STROBE_TORCH})
  set(STROBE_TORCH "$ENV{STROBE_TORCH}" CACHE PATH "LibTorch folder")
endif()
file(GLOB strobe_wheel_dirs ${PROJECT_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${STROBE_TORCH} ${strobe_wheel_dirs} PATH_SUFFIXES include
          NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${STROBE_TORCH} ${strobe_wheel_dirs} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${STROBE_TORCH} ${strobe_wheel_dirs} PATH_SUFFIXES lib NO_DEFAULT_PATH)
if(LibTorch_INCLUDE_DIR)
  get_filename_component(LibTorch_DIR_FOUND ${LibTorch_INCLUDE_DIR} DIRECTORY)
  file(STRINGS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h strobe_version_lines REGEX "define TORCH_VERSION_[MP]")
  set(LibTorch_VERSION)
  foreach(part MAJOR MINOR PATCH)
    string(REGEX MATCH "TORCH_VERSION_${part} ([0-9]+)" unused "${strobe_version_lines}")
    list(APPEND LibTorch_VERSION ${CMAKE_MATCH_1})
  endforeach()
  list(JOIN LibTorch_VERSION "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "run tools/run (it installs LibTorch into .deps), or set STROBE_TORCH to a folder with lib/ and include/")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  get_filename_component(strobe_torch_lib ${LibTorch_CPU_LIBRARY} DIRECTORY)
  get_filename_component(strobe_site ${LibTorch_DIR_FOUND} DIRECTORY)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${LibTorch_INCLUDE_DIR}
                                                                  ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  # libtorch_cpu names the CUDA runtime and CUPTI as needed; the linker finds them beside it, the loader by its own rpath.
  target_link_options(LibTorch::LibTorch INTERFACE "LINKER:-rpath-link,${strobe_site}/nvidia/cu13/lib"
                                                   "LINKER:-rpath,${strobe_torch_lib}")
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})

  set(STROBE_HAS_CUDA OFF)
  find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${strobe_torch_lib} NO_DEFAULT_PATH)
  find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${strobe_torch_lib} NO_DEFAULT_PATH)
  find_library(LibTorch_UMBRELLA_LIBRARY torch HINTS ${strobe_torch_lib} NO_DEFAULT_PATH)
  # The CPU set-up has torch_cuda too (it is in the wheel) but not the libraries that it needs.
  file(GLOB strobe_cublas ${strobe_site}/nvidia/cu13/lib/libcublas.so*)
  find_program(STROBE_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(STROBE_CUDA STREQUAL "ON" OR (STROBE_CUDA STREQUAL "AUTO" AND LibTorch_CUDA_LIBRARY AND strobe_cublas AND STROBE_NVCC))
    if(NOT LibTorch_CUDA_LIBRARY OR NOT strobe_cublas)
      message(FATAL_ERROR "STROBE_CUDA=ON: the LibTorch at ${LibTorch_DIR_FOUND} lacks the CUDA libraries; "
                          "use 'tools/run --preset cuda', which installs the full set")
    endif()
    set(STROBE_HAS_CUDA ON)
    target_link_libraries(
      LibTorch::LibTorch INTERFACE "-Wl,--no-as-needed" ${LibTorch_CUDA_LIBRARY} ${LibTorch_C10_CUDA_LIBRARY}
                                   ${LibTorch_UMBRELLA_LIBRARY} "-Wl,--as-needed")
    foreach(dir cudnn nccl nvshmem cusparselt)
      target_link_options(LibTorch::LibTorch INTERFACE "LINKER:-rpath-link,${strobe_site}/nvidia/${dir}/lib")
    endforeach()
    target_compile_definitions(LibTorch::LibTorch INTERFACE STROBE_HAS_CUDA=1)
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_CUDA_LIBRARY
                 LibTorch_C10_CUDA_LIBRARY LibTorch_UMBRELLA_LIBRARY STROBE_NVCC STROBE_CCACHE)
