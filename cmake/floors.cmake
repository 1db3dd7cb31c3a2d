# SPDX-License-Identifier: Apache-2.0
# Options that every target of ours shares; lockstep_warnings is all but the sanitizers.
add_library(lockstep_warnings INTERFACE)
target_include_directories(lockstep_warnings INTERFACE ${CMAKE_SOURCE_DIR})
target_include_directories(lockstep_warnings SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/generated)  # other tools' words, not ours
# No contraction: where a result depends on fma, the code says so; bits must not depend on the compiler's taste.
# -Wno-restrict: GCC 12 sees overlaps in std::string's operator+ that aren't there (GCC bug 105651).
# Paths below one root in debug lines, and from that root in messages, wherever the sources lie and whichever folder a
# compiler cache saw first. In gdb: set substitute-path /lockstep FOLDER.
target_compile_options(lockstep_warnings INTERFACE -fdebug-prefix-map=${CMAKE_SOURCE_DIR}=/lockstep
                       -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=
                       -Wall -Wextra -Wshadow -Wno-missing-field-initializers -Wno-restrict -ffp-contract=off)
# Warnings are errors of the compilers that this was built with; what a newer one finds must not stop who only wants to use it.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 15)
  target_compile_options(lockstep_warnings INTERFACE -Werror)
endif()
# A portable fallback, AVX2 and AVX-512, chosen at run time: three copies of each Highway kernel, not eight.
set(disabled_targets "HWY_SSSE3|HWY_SSE4|HWY_AVX3_DL")
if(HWY_VERSION VERSION_GREATER_EQUAL 1.0.6)
  string(APPEND disabled_targets "|HWY_SSE2|HWY_AVX3_ZEN4|HWY_AVX3_SPR")
endif()
target_compile_definitions(lockstep_warnings INTERFACE "HWY_DISABLED_TARGETS=(${disabled_targets})")
add_library(lockstep_options INTERFACE)
target_link_libraries(lockstep_options INTERFACE lockstep_warnings)
if(LOCKSTEP_SANITIZE)
  target_compile_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all
                         # GCC's own checks between the instructions mislead these two; the release build has them.
                         -Wno-maybe-uninitialized -Wno-mismatched-new-delete)
  if(LOCKSTEP_SANITIZE MATCHES "address" AND NOT LOCKSTEP_SANITIZE MATCHES "fuzzer")
    # A check at every access, for what the address sanitizer sees too, or the processor does: they were half of the compiler's
    # work. The fuzzers have them.
    target_compile_options(lockstep_options INTERFACE -fno-sanitize=null,alignment,object-size,pointer-overflow,vptr)
  endif()
  target_link_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

# The thread sanitizer is for the runtime's threads. It understands neither OpenMP's, which oneDNN computes with, nor the fibers
# of the GPU kernels' executor; of the kernels it sees the threads' own file. The fuzzers are after what reads files.
add_library(lockstep_kernel_options INTERFACE)
if(LOCKSTEP_SANITIZE)
  target_compile_options(lockstep_kernel_options INTERFACE -O1)  # without it vectors are a hundred times as slow
endif()
if(LOCKSTEP_SANITIZE MATCHES "thread|fuzzer")
  target_link_libraries(lockstep_kernel_options INTERFACE lockstep_warnings)
else()
  target_link_libraries(lockstep_kernel_options INTERFACE lockstep_options)
endif()

# lockstep_highway_sources(OUT sources...): those that include themselves once per instruction set.
function(lockstep_highway_sources out)
  set(found)
  foreach(source ${ARGN})
    if(EXISTS ${source})
      file(STRINGS ${source} line REGEX "hwy/foreach_target\\.h" LIMIT_COUNT 1)
      if(line)
        list(APPEND found ${source})
      endif()
    endif()
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()

# lockstep_floor(FOLDER PUBLIC libs... PRIVATE libs... WITHOUT folders...): a static library of every source below FOLDER/, except
# main.cpp and those below the folders left out. It is called by FOLDER's last part.
function(lockstep_floor folder)
  cmake_parse_arguments(ARG "" "" "PUBLIC;PRIVATE;WITHOUT" ${ARGN})
  get_filename_component(floor ${folder} NAME)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/launch/main\\.cpp$|/kernels/gpu/watch/|/runtime/cuda/|_absent\\.cpp$|/cudnn\\.cpp$|/cublaslt\\.cpp$")
  file(GLOB_RECURSE protos CONFIGURE_DEPENDS ${folder}/*.proto)
  foreach(other ${ARG_WITHOUT})
    list(FILTER sources EXCLUDE REGEX "^${CMAKE_SOURCE_DIR}/${other}/")
  endforeach()
  foreach(proto ${protos})
    file(RELATIVE_PATH relative ${CMAKE_SOURCE_DIR} ${proto})
    string(REGEX REPLACE "\\.proto$" "" stem ${relative})
    set(out ${CMAKE_BINARY_DIR}/generated/${stem})
    add_custom_command(OUTPUT ${out}.pb.cc ${out}.pb.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated
      COMMAND protobuf::protoc --cpp_out=${CMAKE_BINARY_DIR}/generated -I ${CMAKE_SOURCE_DIR} ${relative}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DEPENDS ${proto})
    set_source_files_properties(${out}.pb.cc PROPERTIES COMPILE_OPTIONS -w)
    list(APPEND sources ${out}.pb.cc ${out}.pb.h)
  endforeach()
  set(options lockstep_options)
  if(floor STREQUAL kernels)
    set(options lockstep_kernel_options)
  endif()
  list(LENGTH sources count)
  if(count EQUAL 0)
    add_library(lockstep_${floor} INTERFACE)
    target_link_libraries(lockstep_${floor} INTERFACE ${ARG_PUBLIC} ${ARG_PRIVATE} lockstep_options)
    return()
  endif()
  lockstep_highway_sources(highway ${sources})
  set_source_files_properties(${highway} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  if(LOCKSTEP_SANITIZE MATCHES "address" AND NOT LOCKSTEP_SANITIZE MATCHES "fuzzer")
    # Redzones around a kernel's tiles of sums keep them out of registers: the compiler then takes ten times as long. Indices
    # into such arrays are checked by the undefined-behaviour sanitizer.
    set_source_files_properties(${highway} PROPERTIES COMPILE_OPTIONS "--param=asan-stack=0")
  endif()
  if(LOCKSTEP_SANITIZE MATCHES "thread")
    set_source_files_properties(${CMAKE_SOURCE_DIR}/kernels/core/thread_team.cpp PROPERTIES COMPILE_OPTIONS
                                -fsanitize=thread SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  add_library(lockstep_${floor} STATIC ${sources})
  target_link_libraries(lockstep_${floor} PUBLIC ${ARG_PUBLIC} Threads::Threads PRIVATE $<BUILD_INTERFACE:${options}> ${ARG_PRIVATE})
  target_include_directories(lockstep_${floor} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>)
endfunction()
