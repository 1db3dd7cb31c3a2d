// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/nccl.h"

#include <fmt/format.h>

#include <optional>

#include "kernels/vendor/shared_library.h"
#include "runtime/comm/device_collectives.h"

namespace lockstep {
namespace {

struct Loaded {
  std::optional<Nccl> nccl;
  std::string description;
};

Loaded load() {
  Loaded l;
  const SharedLibrary library({LOCKSTEP_NCCL_LIBRARY, LOCKSTEP_NCCL_NAME});
  if (!library.loaded()) {
    l.description = "no NCCL: " + library.problem();
    return l;
  }
  Nccl nccl;
#define LOCKSTEP_FIND(name)                                                 \
  nccl.name = reinterpret_cast<decltype(nccl.name)>(library.symbol(#name)); \
  if (!nccl.name) {                                                         \
    l.description = "no NCCL: " LOCKSTEP_NCCL_NAME " lacks " #name;         \
    return l;                                                               \
  }
  LOCKSTEP_NCCL_FUNCTIONS(LOCKSTEP_FIND)
#undef LOCKSTEP_FIND
  int version = 0;
  nccl.ncclGetVersion(&version);
  l.description = fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  l.nccl = nccl;
  return l;
}

const Loaded& loaded() {
  static const Loaded l = load();
  return l;
}

}  // namespace

const Nccl* Nccl::get() { return loaded().nccl ? &*loaded().nccl : nullptr; }
const std::string& Nccl::description() { return loaded().description; }

bool built_with_nccl() { return true; }
bool has_nccl() { return Nccl::get() != nullptr; }
std::string nccl_description() { return Nccl::description(); }

}  // namespace lockstep
