// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/cpu_target.h"

#include <hwy/highway.h>

#include <algorithm>
#include <cstdlib>

#if HWY_ARCH_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/core/error.h"
#include "kernels/vendor/onednn.h"

namespace lockstep {

namespace {

// The best of Highway's targets that a level allows. On x86 better ones have lower numbers.
int64_t best_target(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return HWY_STATIC_TARGET;
    case CpuLevel::avx2:
      return HWY_AVX2;
    case CpuLevel::avx512:
      return HWY_AVX3;
    case CpuLevel::avx512_bf16:
    case CpuLevel::amx:
      return 0;  // all that were compiled
  }
  return 0;
}

dnnl::cpu_isa best_isa(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return dnnl::cpu_isa::sse41;  // its least
    case CpuLevel::avx2:
      return dnnl::cpu_isa::avx2;
    case CpuLevel::avx512:
      return dnnl::cpu_isa::avx512_core;
    case CpuLevel::avx512_bf16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case CpuLevel::amx:
      break;
  }
  return dnnl::cpu_isa::avx512_core_amx;
}

#if HWY_ARCH_X86
// Intel SDM, volume 2, CPUID: leaf 7.
bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

bool has_amx_bf16() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023,
                 kTileData = 18;  // ARCH_REQ_XCOMP_PERM of <asm/prctl.h>, Linux 5.16
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool has_avx512_bf16() { return false; }
bool has_amx_bf16() { return false; }
#endif

// Asked once, before set_cpu_target makes Highway answer with less.
const std::vector<int64_t>& found_targets() {
  static const std::vector<int64_t> found = [] {
    std::vector<int64_t> all = hwy::SupportedAndGeneratedTargets();
    if (all.empty() || all.back() != HWY_STATIC_TARGET) all.push_back(HWY_STATIC_TARGET);
    return all;
  }();
  return found;
}

const std::vector<CpuLevel>& found_levels() {
  static const std::vector<CpuLevel> found = [] {
    std::vector<CpuLevel> all = {CpuLevel::baseline};
    const auto has = [](int64_t target) { return std::ranges::count(found_targets(), target) > 0; };
    if (has(HWY_AVX2)) all.insert(all.begin(), CpuLevel::avx2);
    if (has(HWY_AVX3)) {
      all.insert(all.begin(), CpuLevel::avx512);
      if (has_avx512_bf16()) {
        all.insert(all.begin(), CpuLevel::avx512_bf16);
        if (has_amx_bf16()) all.insert(all.begin(), CpuLevel::amx);
      }
    }
    return all;
  }();
  return found;
}

CpuLevel& level_limit() {
  static CpuLevel limit = found_levels().front();
  return limit;
}

}  // namespace

const char* name(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return "baseline";
    case CpuLevel::avx2:
      return "avx2";
    case CpuLevel::avx512:
      return "avx512";
    case CpuLevel::avx512_bf16:
      return "avx512_bf16";
    case CpuLevel::amx:
      return "amx";
  }
  return "?";
}

std::vector<CpuLevel> supported_levels() { return found_levels(); }

CpuLevel cpu_level_named(std::string_view wanted) {
  std::string names;
  for (CpuLevel level : found_levels()) {
    if (wanted == name(level)) return level;
    names += std::string(names.empty() ? "" : ", ") + name(level);
  }
  bool known = false;
  for (CpuLevel level : {CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512_bf16, CpuLevel::amx})
    known |= wanted == name(level);
  throw Error(Exit::config, "E_CPU_TARGET",
              known ? fmt::format("this processor lacks {}", wanted)
                    : fmt::format("\"{}\" is not an instruction set of this build", wanted))
      .at("variable", "LOCKSTEP_CPU")
      .hint((known ? "it has " : "one of ") + names);
}

CpuLevel cpu_level() {
  const int64_t target = cpu_target();
  for (CpuLevel level : {CpuLevel::baseline, CpuLevel::avx2})
    if (target == best_target(level)) return level;
  return level_limit();
}

void apply_cpu_level_from_environment() {
  const char* value = std::getenv("LOCKSTEP_CPU");
  if (value == nullptr) return;
  const CpuLevel level = level_limit() = cpu_level_named(value);
  set_cpu_target(*std::ranges::find_if(found_targets(), [&](int64_t t) { return t >= best_target(level); }));
  LOCKSTEP_ASSERT(dnnl::set_max_cpu_isa(best_isa(level)) == dnnl::status::success,
                  "oneDNN was used before its limit was set");
}

std::vector<int64_t> supported_targets() { return found_targets(); }

const char* cpu_target_name(int64_t target) {
  if (target == HWY_AVX3) return "avx512";
  if (target == HWY_AVX2) return "avx2";
  return "baseline";
}

int64_t cpu_target() {
  found_targets();
  const std::vector<int64_t> now = hwy::SupportedAndGeneratedTargets();
  return now.empty() ? HWY_STATIC_TARGET : now.front();
}

void set_cpu_target(int64_t target) {
  int64_t mask = 0;
  for (int64_t t : found_targets())
    if (t >= target) mask |= t;
  LOCKSTEP_ASSERT((mask & target) != 0, "{} is not supported here", cpu_target_name(target));
  hwy::SetSupportedTargetsForTest(mask);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace lockstep
