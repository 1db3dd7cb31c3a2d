// SPDX-License-Identifier: Apache-2.0
// Sums over the buffers of several ranks, and over parts of one.
#pragma once

#include <cstdint>

namespace lockstep {

// For i in [begin, end): the sum over k of buffers[k][i], written to every buffers[k][i]. float32. Added as a
// binary tree, ((0 + 1) + (2 + 3)) + ...: a node's left side holds the largest power of two of buffers that
// leaves something to its right. Up to 65,536 buffers.
void sum_into_all(float* const* buffers, int count, int64_t begin, int64_t end);

// to[i] = the sum over part of parts[part * stride + i], in the order of parts, for i < n. float32; bits
// don't depend on the thread count.
void sum_parts(const float* parts, int64_t stride, int64_t count, int64_t n, float* to, int threads);

}  // namespace lockstep
