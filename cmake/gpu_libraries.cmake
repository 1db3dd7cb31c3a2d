# SPDX-License-Identifier: Apache-2.0
# NCCL, cuDNN and cuBLASLt, wherever they are: in the toolkit, in the distribution's folders, or in pip's nvidia/* folders
# (of an active virtual environment, or of the one that bench/peers/install makes). Included where nvcc is.
#
#   LOCKSTEP_HAS_NCCL, LOCKSTEP_HAS_CUDNN,                 compiled in; loaded at run time, from where they are now, else by
#   LOCKSTEP_HAS_CUBLASLT                                  name, else from pip's folders there. Where they don't load, their
#                                                          kernels decline, and gradients go over MPI.
#   LOCKSTEP_HAS_CUDNN_FRONTEND                            cudnn_frontend's headers, which cuDNN's attention needs
set(pip_folders)
set(pip_headers)
foreach(environment $ENV{VIRTUAL_ENV} $ENV{LOCKSTEP_PEERS} $ENV{HOME}/.cache/lockstep/peers)
  file(GLOB found ${environment}/lib/python3*/site-packages/nvidia/*)
  list(APPEND pip_folders ${found})
  file(GLOB found ${environment}/lib/python3*/site-packages/include)
  list(APPEND pip_headers ${found})
endforeach()

# lockstep_find_gpu_library(NAME LIBRARY HEADER VERSION_FILE REGEX): <NAME>_INCLUDE_DIR, the major version in <NAME>_MAJOR (from
# the first number that REGEX finds in VERSION_FILE), and the library of that version in <NAME>_LIBRARY.
function(lockstep_find_gpu_library name library header version_file regex)
  find_path(${name}_INCLUDE_DIR ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS} ${pip_folders} PATH_SUFFIXES include)
  if(NOT ${name}_INCLUDE_DIR OR NOT EXISTS ${${name}_INCLUDE_DIR}/${version_file})
    return()
  endif()
  file(STRINGS ${${name}_INCLUDE_DIR}/${version_file} line REGEX ${regex} LIMIT_COUNT 1)
  string(REGEX MATCH "[0-9]+" major "${line}")
  set(${name}_MAJOR ${major} PARENT_SCOPE)
  get_filename_component(beside ${${name}_INCLUDE_DIR} DIRECTORY)
  find_library(${name}_LIBRARY lib${library}.so.${major}
               HINTS ${beside} ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT} ${pip_folders} PATH_SUFFIXES lib lib64)
endfunction()

# 2.19 or later, which registers memory.
lockstep_find_gpu_library(NCCL nccl nccl.h nccl.h "define NCCL_MAJOR")
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  file(STRINGS ${NCCL_INCLUDE_DIR}/nccl.h line REGEX "define NCCL_MINOR" LIMIT_COUNT 1)
  string(REGEX MATCH "[0-9]+" minor "${line}")
  if(${NCCL_MAJOR}.${minor} VERSION_GREATER_EQUAL 2.19)
    set(LOCKSTEP_HAS_NCCL TRUE)
    set(LOCKSTEP_NCCL_DEFINITIONS LOCKSTEP_NCCL_LIBRARY="${NCCL_LIBRARY}" LOCKSTEP_NCCL_NAME="libnccl.so.${NCCL_MAJOR}")
  endif()
endif()

set(LOCKSTEP_GPU_LIBRARY_SOURCES)
set(LOCKSTEP_GPU_LIBRARY_DEFINITIONS)
set(LOCKSTEP_GPU_LIBRARY_INCLUDES)
macro(lockstep_use_gpu_library name library sources)
  set(LOCKSTEP_HAS_${name} TRUE)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS kernels/${sources})
  list(APPEND LOCKSTEP_GPU_LIBRARY_SOURCES ${found})
  list(APPEND LOCKSTEP_GPU_LIBRARY_DEFINITIONS LOCKSTEP_HAS_${name} LOCKSTEP_${name}_LIBRARY="${${name}_LIBRARY}"
       LOCKSTEP_${name}_NAME="lib${library}.so.${${name}_MAJOR}")
  list(APPEND LOCKSTEP_GPU_LIBRARY_INCLUDES ${${name}_INCLUDE_DIR})
endmacro()
lockstep_find_gpu_library(CUDNN cudnn cudnn.h cudnn_version.h "define CUDNN_MAJOR")
if(CUDNN_LIBRARY AND CUDNN_MAJOR GREATER_EQUAL 9)
  lockstep_use_gpu_library(CUDNN cudnn cudnn.cpp)
endif()
# libnvrtc, of the toolkit's version, with which cuDNN compiles engines.
if(LOCKSTEP_HAS_CUDNN)
  set(nvrtc_name libnvrtc.so.${CUDAToolkit_VERSION_MAJOR})
  get_filename_component(beside ${CUDNN_LIBRARY} DIRECTORY)
  find_library(NVRTC_LIBRARY ${nvrtc_name} HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT} ${beside} ${pip_folders}
               PATH_SUFFIXES lib lib64)
  if(NOT NVRTC_LIBRARY)
    set(NVRTC_LIBRARY ${beside}/${nvrtc_name})  # looked for again at run time
  endif()
  list(APPEND LOCKSTEP_GPU_LIBRARY_DEFINITIONS LOCKSTEP_NVRTC_LIBRARY="${NVRTC_LIBRARY}" LOCKSTEP_NVRTC_NAME="${nvrtc_name}")
endif()
# cudnn_frontend, 1.13 or later. It opens libcudart by its name, where we link the static one.
if(LOCKSTEP_HAS_CUDNN)
  find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h
            HINTS ${CUDNN_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS} ${pip_headers} ${pip_folders} PATH_SUFFIXES include)
  set(frontend_version)
  if(CUDNN_FRONTEND_INCLUDE_DIR AND EXISTS ${CUDNN_FRONTEND_INCLUDE_DIR}/cudnn_frontend_version.h)
    file(STRINGS ${CUDNN_FRONTEND_INCLUDE_DIR}/cudnn_frontend_version.h frontend_version
         REGEX "define CUDNN_FRONTEND_M(AJOR|INOR)_VERSION")
    string(REGEX REPLACE "[^0-9;]" "" frontend_version "${frontend_version}")
    string(REPLACE ";" "." frontend_version "${frontend_version}")
  endif()
  if(frontend_version VERSION_GREATER_EQUAL 1.13 AND CUDA_cudart_LIBRARY)
    set(LOCKSTEP_HAS_CUDNN_FRONTEND TRUE)
    list(APPEND LOCKSTEP_GPU_LIBRARY_DEFINITIONS LOCKSTEP_HAS_CUDNN_FRONTEND LOCKSTEP_CUDART_LIBRARY="${CUDA_cudart_LIBRARY}")
    list(APPEND LOCKSTEP_GPU_LIBRARY_INCLUDES ${CUDNN_FRONTEND_INCLUDE_DIR})
  else()
    list(FILTER LOCKSTEP_GPU_LIBRARY_SOURCES EXCLUDE REGEX "/attention/cudnn\\.cpp$")
  endif()
endif()
lockstep_find_gpu_library(CUBLASLT cublasLt cublasLt.h cublas_api.h "define CUBLAS_VER_MAJOR")
if(CUBLASLT_LIBRARY AND CUBLASLT_MAJOR GREATER_EQUAL CUDAToolkit_VERSION_MAJOR)
  lockstep_use_gpu_library(CUBLASLT cublasLt cublaslt.cpp)
endif()
# The rooms' ones call our GPU kernels (kernels/gpu/library_parts.h).
set_source_files_properties(${LOCKSTEP_GPU_LIBRARY_SOURCES} PROPERTIES COMPILE_DEFINITIONS LOCKSTEP_DEVICE=cuda)
foreach(library NCCL CUDNN CUBLASLT)
  if(LOCKSTEP_HAS_${library})
    message(STATUS "${library}: ${${library}_LIBRARY}")
  else()
    message(STATUS "${library}: not found, or too old")
  endif()
endforeach()
if(LOCKSTEP_HAS_CUDNN_FRONTEND)
  message(STATUS "cudnn_frontend: ${CUDNN_FRONTEND_INCLUDE_DIR}")
else()
  message(STATUS "cudnn_frontend: not found, or older than 1.13")
endif()
