# SPDX-License-Identifier: Apache-2.0
# GPU kernels: kernels/**/*.cu, each compiled up to three times (kernels/gpu/device_code.h).
#   lockstep_kernels_simt     by the host compiler, for the executor; part of lockstep_kernels
#   lockstep_kernels_watched  by the host compiler, every memory access reported to the watch; for tests and reports
#   lockstep_kernels_cuda     by nvcc, where there is one; part of lockstep_kernels
set(LOCKSTEP_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE LOCKSTEP_CUDA PROPERTY STRINGS AUTO ON OFF)
# One architecture builds fastest; "80;90a;100" is all that we support.
set(LOCKSTEP_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures to build for")

set(LOCKSTEP_HAS_CUDA FALSE)
set(LOCKSTEP_HAS_NCCL FALSE)
set(LOCKSTEP_HAS_CUDNN FALSE)
set(LOCKSTEP_HAS_CUDNN_FRONTEND FALSE)
set(LOCKSTEP_HAS_CUBLASLT FALSE)
if(NOT LOCKSTEP_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${LOCKSTEP_CUDA_ARCHITECTURES})
    if(NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${LOCKSTEP_LAUNCHER})
    endif()
    enable_language(CUDA)
    # Else packages' -isystem /usr/include would put it before the compiler's own headers.
    list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES /usr/include)
    find_package(CUDAToolkit REQUIRED)
    set(LOCKSTEP_HAS_CUDA TRUE)
    include(cmake/gpu_libraries.cmake)
  elseif(LOCKSTEP_CUDA STREQUAL ON)
    message(FATAL_ERROR "LOCKSTEP_CUDA=ON, but no nvcc: put it on the PATH or set CUDACXX")
  endif()
endif()

# lockstep_simt_sources(TARGET DEVICE sources...): an object library of .cu files, compiled by the host compiler as
# namespace lockstep::DEVICE. Call it in the directory of the sources' list: LANGUAGE is a property of directories.
function(lockstep_simt_sources target device)
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  add_library(${target} OBJECT ${ARGN})
  set_target_properties(${target} PROPERTIES UNITY_BUILD OFF)
  target_compile_definitions(${target} PRIVATE LOCKSTEP_DEVICE=${device})
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas)  # nvcc's
  target_link_libraries(${target} PRIVATE fmt::fmt)
  if(device STREQUAL simt_watched)
    # The compiler reports accesses through the thread sanitizer's call-outs, which watch.cpp defines: no other
    # sanitizer and no libtsan. Little optimisation, so that an access is the one in the source.
    target_compile_definitions(${target} PRIVATE LOCKSTEP_WATCHED)
    target_compile_options(${target} PRIVATE -O1 -g -fno-tree-vectorize -fno-omit-frame-pointer -fsanitize=thread)
    target_link_libraries(${target} PRIVATE lockstep_warnings)
  else()
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O2>)  # checks kernels; nobody waits for its speed
    target_link_libraries(${target} PRIVATE lockstep_options)
  endif()
endfunction()

file(GLOB_RECURSE kernel_sources CONFIGURE_DEPENDS kernels/*.cu)
lockstep_simt_sources(lockstep_kernels_simt simt ${kernel_sources})
if(LOCKSTEP_TESTS OR LOCKSTEP_BENCH)
  lockstep_simt_sources(lockstep_kernels_watched_objects simt_watched ${kernel_sources})
  file(GLOB watch_sources CONFIGURE_DEPENDS kernels/gpu/watch/*.cpp)
  add_library(lockstep_kernels_watched STATIC ${watch_sources} $<TARGET_OBJECTS:lockstep_kernels_watched_objects>)
  target_link_libraries(lockstep_kernels_watched PUBLIC lockstep_kernels PRIVATE lockstep_options)
endif()

if(LOCKSTEP_HAS_CUDA)
  # One file a room: nvcc takes its time for each.
  foreach(source ${kernel_sources})
    get_filename_component(room ${source} DIRECTORY)
    file(RELATIVE_PATH room ${CMAKE_SOURCE_DIR} ${room})
    string(REPLACE "/" "_" room ${room})
    list(APPEND cuda_rooms ${room})
    string(APPEND cuda_text_${room} "#include \"${source}\"\n")
  endforeach()
  list(REMOVE_DUPLICATES cuda_rooms)
  foreach(room ${cuda_rooms})
    set(unity ${CMAKE_BINARY_DIR}/generated/cuda/${room}.cu)
    file(GENERATE OUTPUT ${unity} CONTENT "${cuda_text_${room}}")
    list(APPEND cuda_sources ${unity})
  endforeach()
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CUDA)
  add_library(lockstep_kernels_cuda OBJECT ${cuda_sources})
  set_target_properties(lockstep_kernels_cuda PROPERTIES CUDA_STANDARD_REQUIRED OFF)  # CMake 3.25 knows none above 17
  target_include_directories(lockstep_kernels_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(lockstep_kernels_cuda PRIVATE LOCKSTEP_DEVICE=cuda
                             FMT_USE_CONSTEXPR=1 FMT_CONSTEVAL=)  # nvcc fails at fmt 9's check of format strings
  target_compile_options(lockstep_kernels_cuda PRIVATE -std=c++20 --Werror=all-warnings -Xcompiler=-Wall,-Wextra -lineinfo)
  target_link_libraries(lockstep_kernels_cuda PRIVATE fmt::fmt)
endif()
