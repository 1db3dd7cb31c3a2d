// Which of the instruction sets that were compiled (the compiler's baseline, AVX2, AVX-512) Highway's
// dispatch uses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

// Highway's target bits (HWY_AVX2, ...) that are compiled in and that this processor has, best first.
std::vector<int64_t> supported_targets();
// "baseline", "avx2", "avx512": the names that LOCKSTEP_CPU takes.
const char* cpu_target_name(int64_t target);
// The one in use.
int64_t cpu_target();
// From here on no kernel uses an instruction set above `target`, one of supported_targets(). Not while a
// kernel runs.
void set_cpu_target(int64_t target);
// Obeys LOCKSTEP_CPU where it is set; exit 78 where it names no instruction set or one that this processor
// lacks. To be called once, before any kernel runs.
void apply_cpu_target_from_environment();

}  // namespace lockstep
