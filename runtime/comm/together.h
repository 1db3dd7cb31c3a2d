// SPDX-License-Identifier: Apache-2.0
// Work that may fail on some ranks, without leaving the others waiting: either it succeeds on all, or every
// rank throws the same error.
#pragma once

#include <functional>
#include <string>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"

namespace lockstep {

// An error that every rank throws at once: rank 0 alone need report it.
class AgreedError : public Error {
 public:
  explicit AgreedError(Error e) : Error(std::move(e)) {}
};

// Runs `work` on every rank; if it throws an Error anywhere, all ranks throw that of the lowest rank, with
// its number added as a place when it isn't common to all.
void together(Communicator& comm, const std::function<void()>& work);
// Runs `work` on rank 0 alone and returns its text on all.
std::string on_root(Communicator& comm, const std::function<std::string()>& work);

}  // namespace lockstep
