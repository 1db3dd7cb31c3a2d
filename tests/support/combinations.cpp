// SPDX-License-Identifier: Apache-2.0
#include "tests/support/combinations.h"

#include <cstdlib>

#include "kernels/core/cpu_target.h"

namespace lockstep::testing {

bool all_combinations() {
#ifdef LOCKSTEP_SANITIZED
  return std::getenv("LOCKSTEP_TEST_ALL") != nullptr;
#else
  return true;
#endif
}

std::vector<int> thread_counts(std::vector<int> all) {
  if (!all_combinations()) all = {1, 3};
  return all;
}

std::vector<int64_t> targets_to_test() {
  std::vector<int64_t> all = supported_targets();
  if (!all_combinations() && all.size() > 2) all.erase(all.begin() + 1, all.end() - 1);
  return all;
}

}  // namespace lockstep::testing
