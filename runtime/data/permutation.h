// SPDX-License-Identifier: Apache-2.0
// A keyed permutation of [0, count): O(1) memory, a pure function of its arguments.
#pragma once

#include <cstdint>

namespace lockstep {

// The image of `position` under permutation number `number` of (seed, stream). count >= 1, position in
// [0, count). Numbers from 2^32 on repeat the permutations of 2^32 numbers before.
int64_t permute(int64_t count, uint64_t seed, uint32_t stream, int64_t number, int64_t position);

}  // namespace lockstep
