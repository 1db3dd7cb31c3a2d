// SPDX-License-Identifier: Apache-2.0
// Failures on demand: LOCKSTEP_STANDIN_FAIL="cudaMalloc:3" makes the third call of that entry point fail
// (with ":rank1" behind it only on that rank), cudaMalloc:0 each call; ncclAllReduce:2:hang never completes
// it, and after cudnnConvolutionForward:1:lose every call of CUDA fails too, as after an illegal access.
// LOCKSTEP_STANDIN_LOG names a file to which each call that does work appends a line.
#pragma once

#include <cstdint>
#include <string>

namespace lockstep::standins {

enum class Fate { succeed, fail, hang };
// Counts the call.
Fate fate_of(const char* entry_point);
// Whether the libraries' heuristics offer anything for so many samples (LOCKSTEP_STANDIN_OFFERS_UP_TO).
bool offers_for(int64_t samples);
void log_call(const std::string& line);
// Allocations, streams, events, graphs and communicators that are there now; all of them gone at exit is
// logged as "leaks 0".
void count(int change);

}  // namespace lockstep::standins
