// SPDX-License-Identifier: Apache-2.0
// NCCL, loaded when first needed: a program built with it starts, and works over MPI, where it is not.
#pragma once

#include <nccl.h>

#include <string>

namespace lockstep {

#define LOCKSTEP_NCCL_FUNCTIONS(F) \
  F(ncclGetVersion)                \
  F(ncclGetErrorString)            \
  F(ncclGetLastError)              \
  F(ncclGetUniqueId)               \
  F(ncclCommInitRankConfig)        \
  F(ncclCommGetAsyncError)         \
  F(ncclCommDestroy)               \
  F(ncclCommAbort)                 \
  F(ncclMemAlloc)                  \
  F(ncclMemFree)                   \
  F(ncclCommRegister)              \
  F(ncclCommDeregister)            \
  F(ncclAllReduce)                 \
  F(ncclAllGather)

struct Nccl {
  // Null where it cannot be loaded.
  static const Nccl* get();
  // "NCCL 2.28.3", or why there is none and where it was looked for.
  static const std::string& description();

#define LOCKSTEP_MEMBER(name) decltype(&::name) name = nullptr;
  LOCKSTEP_NCCL_FUNCTIONS(LOCKSTEP_MEMBER)
#undef LOCKSTEP_MEMBER
};

}  // namespace lockstep
