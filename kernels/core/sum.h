// Sums over the buffers of several ranks.
#pragma once

#include <cstdint>

namespace lockstep {

// For i in [begin, end): the sum over k of buffers[k][i], written to every buffers[k][i]. float32. Added as a
// binary tree, ((0 + 1) + (2 + 3)) + ...: a node's left side holds the largest power of two of buffers that
// leaves something to its right. Up to 65,536 buffers.
void sum_into_all(float* const* buffers, int count, int64_t begin, int64_t end);

}  // namespace lockstep
