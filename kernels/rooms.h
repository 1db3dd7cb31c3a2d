// SPDX-License-Identifier: Apache-2.0
// The rooms of this floor, a line each. Candidates are asked in this order: our own kernels first, then the libraries'.
#pragma once

// clang-format off
// register_ROOM(Registry&): the CPU's kernels; register_ROOM(Registry&, Device): the GPU's, in register.cu or the room's one .cu.
#define LOCKSTEP_ROOMS(ROOM) \
  ROOM(attention)            \
  ROOM(batch_norm)           \
  ROOM(cast)                 \
  ROOM(concat)               \
  ROOM(conv2d)               \
  ROOM(diffusion)            \
  ROOM(dropout)              \
  ROOM(elementwise)          \
  ROOM(embedding)            \
  ROOM(geglu)                \
  ROOM(group_norm)           \
  ROOM(image_augment)        \
  ROOM(image_normalize)      \
  ROOM(layer_norm)           \
  ROOM(linear)               \
  ROOM(loss)                 \
  ROOM(optimizer)            \
  ROOM(pool2d)               \
  ROOM(reorder)              \
  ROOM(resample)             \
  ROOM(scale_shift)          \
  ROOM(timestep_embedding)
// clang-format on

// register_ROOM_LIBRARY(Registry&): what a library computes on a GPU, where the build has it.
#ifdef LOCKSTEP_HAS_CUDNN
#define LOCKSTEP_CUDNN_ROOMS(ROOM) ROOM(conv2d_cudnn) ROOM(pool2d_cudnn)
#else
#define LOCKSTEP_CUDNN_ROOMS(ROOM)
#endif
#ifdef LOCKSTEP_HAS_CUDNN_FRONTEND
#define LOCKSTEP_CUDNN_FRONTEND_ROOMS(ROOM) ROOM(attention_cudnn)
#else
#define LOCKSTEP_CUDNN_FRONTEND_ROOMS(ROOM)
#endif
#ifdef LOCKSTEP_HAS_CUBLASLT
#define LOCKSTEP_CUBLASLT_ROOMS(ROOM) ROOM(linear_cublaslt)
#else
#define LOCKSTEP_CUBLASLT_ROOMS(ROOM)
#endif
#define LOCKSTEP_LIBRARY_ROOMS(ROOM) \
  LOCKSTEP_CUDNN_ROOMS(ROOM) LOCKSTEP_CUDNN_FRONTEND_ROOMS(ROOM) LOCKSTEP_CUBLASLT_ROOMS(ROOM)
