// SPDX-License-Identifier: Apache-2.0
// How many combinations tests take. Sanitizers look for what no comparison shows, and make each run several
// times slower: under them tests take fewer, and the release build takes all (tests/README.md).
#pragma once

#include <cstdint>
#include <vector>

namespace lockstep::testing {

// In a build without sanitizers, and where LOCKSTEP_TEST_ALL is set (tests/run --long).
bool all_combinations();
// How many threads kernels work with: `all`, or 1 and 3.
std::vector<int> thread_counts(std::vector<int> all = {1, 2, 3});
// Instruction sets that this processor has, best first: all of them, or the best and the least.
std::vector<int64_t> targets_to_test();

}  // namespace lockstep::testing
