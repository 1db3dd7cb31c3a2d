// SPDX-License-Identifier: Apache-2.0
// How fast ranks of one host sum through its memory, measured with threads in their place.
#pragma once

#include "runtime/comm/collective_cost.h"

namespace lockstep {

// Of `ranks` ranks on `cores` cores; takes about 0.1 s and 4 MB a rank. Arrays are as large as a bucket, and
// written anew before each sum, as gradients are. Beyond 64 ranks time grows with their count.
HostSpeed measure_host_speed(int ranks, int cores);

}  // namespace lockstep
