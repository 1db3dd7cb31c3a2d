// Sums over the buffers of several ranks.
#pragma once

#include <cstdint>

namespace lockstep {

// For i in [begin, end): the sum over k of buffers[k][i], in the order of k, written to every buffers[k][i].
// float32.
void sum_into_all(float* const* buffers, int count, int64_t begin, int64_t end);

}  // namespace lockstep
