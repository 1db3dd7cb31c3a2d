# SPDX-License-Identifier: Apache-2.0
# GPU kernels: kernels/**/*.cu, each compiled up to three times (kernels/gpu/device_code.h).
#   lockstep_kernels_simt     by the host compiler, for the executor; part of lockstep_kernels
#   lockstep_kernels_watched  by the host compiler, every memory access reported to the watch (lockstep_watch, which
#                             tests' kernels use alone); for tests and reports
#   lockstep_kernels_cuda     by nvcc, where there is one; part of lockstep_kernels
set(LOCKSTEP_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE LOCKSTEP_CUDA PROPERTY STRINGS AUTO ON OFF)
# AUTO: those of 80, 90a and 100 that this nvcc knows, and PTX of the newest, which later GPUs compile when they first run it.
# HERE: that of this machine's GPU alone (90a where there is none), which the presets build: a third of the work. Else a list
# in CMake's words: "80-real;90a-real;100". A GPU that none of them runs on is refused at start (runtime/cuda/capability.h).
set(LOCKSTEP_CUDA_ARCHITECTURES AUTO CACHE STRING "GPU architectures to build for: AUTO, HERE, or a list")

# lockstep_cuda_architectures(RESULT): LOCKSTEP_CUDA_ARCHITECTURES as a list.
function(lockstep_cuda_architectures result)
  set(list ${LOCKSTEP_CUDA_ARCHITECTURES})
  if(list STREQUAL HERE)
    set(list 90a)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE cards ERROR_QUIET
                    RESULT_VARIABLE failed)
    if(NOT failed AND cards MATCHES "^([0-9]+)\\.([0-9])")
      set(list ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
      string(REGEX REPLACE "^90$" "90a" list ${list})
    endif()
  elseif(list STREQUAL AUTO)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
    set(list)
    foreach(architecture 80 90a 100)
      string(REGEX REPLACE "a$" "" plain ${architecture})
      if(known MATCHES "sm_${plain}[^0-9]")
        list(APPEND list ${architecture}-real)
        set(newest ${plain}-virtual)
      endif()
    endforeach()
    list(APPEND list ${newest})
  endif()
  foreach(architecture ${list})
    if(NOT architecture MATCHES "^[0-9]+[af]?(-real|-virtual)?$")
      message(FATAL_ERROR "LOCKSTEP_CUDA_ARCHITECTURES: ${architecture} is neither AUTO, HERE nor an architecture")
    endif()
  endforeach()
  set(${result} "${list}" PARENT_SCOPE)
endfunction()
option(LOCKSTEP_CUDA_LINES "Line information in the GPU kernels, for profilers and sanitizers" ON)

set(LOCKSTEP_HAS_CUDA FALSE)
set(LOCKSTEP_HAS_NCCL FALSE)
set(LOCKSTEP_HAS_CUDNN FALSE)
set(LOCKSTEP_HAS_CUDNN_FRONTEND FALSE)
set(LOCKSTEP_HAS_CUBLASLT FALSE)
if(NOT LOCKSTEP_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    lockstep_cuda_architectures(CMAKE_CUDA_ARCHITECTURES)
    set(LOCKSTEP_CUDA_BUILT_FOR "${CMAKE_CUDA_ARCHITECTURES}" CACHE INTERNAL "what LOCKSTEP_CUDA_ARCHITECTURES comes to")
    message(STATUS "GPU architectures: ${LOCKSTEP_CUDA_BUILT_FOR}")
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
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)  # checks kernels; nobody waits for its speed
    target_link_libraries(${target} PRIVATE lockstep_kernel_options)
  endif()
endfunction()

file(GLOB_RECURSE kernel_sources CONFIGURE_DEPENDS kernels/*.cu)
lockstep_simt_sources(lockstep_kernels_simt simt ${kernel_sources})
if(LOCKSTEP_TESTS OR LOCKSTEP_BENCH)
  file(GLOB watch_sources CONFIGURE_DEPENDS kernels/gpu/watch/*.cpp)
  list(FILTER watch_sources EXCLUDE REGEX "/registry\\.cpp$")
  add_library(lockstep_watch STATIC ${watch_sources})
  target_link_libraries(lockstep_watch PUBLIC lockstep_kernels PRIVATE lockstep_options)
  lockstep_simt_sources(lockstep_kernels_watched_objects simt_watched ${kernel_sources})
  add_library(lockstep_kernels_watched STATIC kernels/gpu/watch/registry.cpp
              $<TARGET_OBJECTS:lockstep_kernels_watched_objects>)
  target_link_libraries(lockstep_kernels_watched PUBLIC lockstep_watch PRIVATE lockstep_options)
  if(LOCKSTEP_SANITIZE)  # its tests are left to builds without sanitizers
    set_target_properties(lockstep_kernels_watched_objects lockstep_kernels_watched PROPERTIES EXCLUDE_FROM_ALL TRUE)
  endif()
endif()

# lockstep_cuda_options(TARGET): what nvcc is told, for sources in namespace lockstep::cuda.
function(lockstep_cuda_options target)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD_REQUIRED OFF)  # CMake 3.25 knows none above 17
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${target} PRIVATE LOCKSTEP_DEVICE=cuda
                             FMT_USE_CONSTEXPR=1 FMT_CONSTEVAL=)  # nvcc fails at fmt 9's check of format strings
  target_compile_options(${target} PRIVATE -std=c++20 --Werror=all-warnings -Xcompiler=-Wall,-Wextra
                         $<$<BOOL:${LOCKSTEP_CUDA_LINES}>:-lineinfo>)
  target_link_libraries(${target} PRIVATE fmt::fmt)
endfunction()

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
  lockstep_cuda_options(lockstep_kernels_cuda)
endif()
