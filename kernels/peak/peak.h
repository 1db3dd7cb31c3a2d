// SPDX-License-Identifier: Apache-2.0
// How fast this machine multiplies, measured: what a kernel's speed is compared with.
#pragma once

namespace lockstep {

// GFLOP/s of float32 multiply-adds from registers on so many threads (a multiply-add is two operations), in
// the instruction set in use. The best of a few tries of some milliseconds each.
double measure_peak_gflops(int threads);

// The same of bf16 multiply-adds with float32 sums, by AVX512-BF16's dot products of pairs and by AMX's
// products of tiles; 0 where the instruction sets in use (cpu_level) lack them.
struct Bf16Peak {
  double avx512_gflops = 0, amx_gflops = 0;
};
Bf16Peak measure_bf16_peak(int threads);

}  // namespace lockstep
