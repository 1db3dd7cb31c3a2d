// SPDX-License-Identifier: Apache-2.0
// How other stand-ins put work on a stream.
#pragma once

#include <functional>

namespace lockstep::standins {

using Work = std::function<void()>;
void enqueue(void* stream, Work work);  // a cudaStream_t; captured where the stream captures

}  // namespace lockstep::standins
