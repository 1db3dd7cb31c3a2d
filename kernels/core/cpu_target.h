// SPDX-License-Identifier: Apache-2.0
// Which instruction sets kernels use: those that were compiled (the compiler's baseline, AVX2, AVX-512),
// among which Highway's dispatch chooses, and those that oneDNN brings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep {

// Each has what those before it have. LOCKSTEP_CPU takes their names.
enum class CpuLevel : uint8_t { baseline, avx2, avx512, avx512_bf16, amx };
const char* name(CpuLevel);
// Those that this processor and this build have, best first. AMX counts where the kernel lets the process use
// it, for which it is asked.
std::vector<CpuLevel> supported_levels();
// Error 78 where nothing is called so, or this processor lacks it.
CpuLevel cpu_level_named(std::string_view name);
// The best one in use.
CpuLevel cpu_level();
// Holds all kernels to the level that LOCKSTEP_CPU names, where it is set: ours through Highway's dispatch,
// oneDNN's through its own limit. To be called once, before any kernel is made, since oneDNN takes no limit
// afterwards. Errors: 78, as cpu_level_named.
void apply_cpu_level_from_environment();

// Highway's target bits (HWY_AVX2, ...) that are compiled in and that this processor has, best first.
std::vector<int64_t> supported_targets();
// "baseline", "avx2", "avx512"
const char* cpu_target_name(int64_t target);
// The one in use.
int64_t cpu_target();
// From here on none of our kernels uses an instruction set above `target`, one of supported_targets(). Not
// while a kernel runs.
void set_cpu_target(int64_t target);

}  // namespace lockstep
