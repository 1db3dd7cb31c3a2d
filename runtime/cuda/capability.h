// SPDX-License-Identifier: Apache-2.0
// Which GPUs this build has code for.
#pragma once

#include <algorithm>
#include <string_view>

namespace lockstep {

// Whether code that was built for `architectures`, CMake's words with spaces between ("80-real 90a-real 100"),
// runs on a GPU of that compute capability (90: 9.0).
//   80-real       machine code: the same major number, the same minor or a later one
//   80-virtual    PTX, which the driver compiles: that capability and all later ones
//   80            both
//   90a, 100f     what an architecture has beyond its family's: that one alone, or its major number alone
// Source: the CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
constexpr bool runs_on(std::string_view architectures, int capability) {
  while (!architectures.empty()) {
    const auto end = std::min(architectures.find(' '), architectures.size());
    std::string_view word = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    int built = 0;
    while (!word.empty() && word[0] >= '0' && word[0] <= '9') {
      built = built * 10 + (word[0] - '0');
      word.remove_prefix(1);
    }
    if (built == 0) continue;
    const bool alone = word.starts_with('a'), family = word.starts_with('f');
    if (alone || family) word.remove_prefix(1);
    const bool same_major = capability / 10 == built / 10;
    const bool ptx_of_all = !alone && !family && word != "-real";
    if (alone ? capability == built : capability >= built && (same_major || ptx_of_all)) return true;
  }
  return false;
}

}  // namespace lockstep
