#include "kernels/core/cpu_target.h"

#include <hwy/highway.h>

#include <cstdlib>

#include "kernels/core/error.h"

namespace lockstep {

namespace {

// Asked once, before set_cpu_target makes Highway answer with less.
const std::vector<int64_t>& found_targets() {
  static const std::vector<int64_t> found = [] {
    std::vector<int64_t> all = hwy::SupportedAndGeneratedTargets();
    if (all.empty() || all.back() != HWY_STATIC_TARGET) all.push_back(HWY_STATIC_TARGET);
    return all;
  }();
  return found;
}

}  // namespace

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
    if (t >= target) mask |= t;  // on x86 Highway numbers better targets lower
  LOCKSTEP_ASSERT((mask & target) != 0, "{} is not supported here", cpu_target_name(target));
  hwy::SetSupportedTargetsForTest(mask);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

void apply_cpu_target_from_environment() {
  const char* value = std::getenv("LOCKSTEP_CPU");
  if (value == nullptr) return;
  std::string names;
  for (int64_t t : found_targets()) {
    if (value == std::string_view(cpu_target_name(t))) return set_cpu_target(t);
    names += std::string(names.empty() ? "" : ", ") + cpu_target_name(t);
  }
  throw Error(Exit::config, "E_CPU_TARGET",
              fmt::format("\"{}\" is not an instruction set of this build and processor", value))
      .at("variable", "LOCKSTEP_CPU")
      .hint("one of " + names);
}

}  // namespace lockstep
