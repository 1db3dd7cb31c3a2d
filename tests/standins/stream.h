// SPDX-License-Identifier: Apache-2.0
// How other stand-ins put work on a stream.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"
#include "tests/standins/memory.h"
#include "tests/standins/order.h"

namespace lockstep::standins {

using Work = std::function<void()>;
// `stream` is a cudaStream_t; captured where the stream captures. `work` finds what it touches at real().
void enqueue(void* stream, const std::string& what, std::vector<Access> accesses, Work work);

inline Access reads(const void* at, size_t bytes) { return {at, bytes, false}; }
inline Access writes(const void* at, size_t bytes) { return {at, bytes, true}; }
inline Access reads(const View& v) { return reads(v.data, static_cast<size_t>(v.spec.bytes())); }
inline Access writes(const View& v) { return writes(v.data, static_cast<size_t>(v.spec.bytes())); }
inline View real(const View& v) { return {v.spec, real_address(v.data)}; }

}  // namespace lockstep::standins
