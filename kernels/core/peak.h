// How fast this machine multiplies, measured: what a kernel's speed is compared with.
#pragma once

namespace lockstep {

// GFLOP/s of float32 multiply-adds from registers on so many threads (a multiply-add is two operations), in
// the instruction set in use. The best of a few tries of some milliseconds each.
double measure_peak_gflops(int threads);

}  // namespace lockstep
