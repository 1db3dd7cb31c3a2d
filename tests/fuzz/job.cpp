// SPDX-License-Identifier: Apache-2.0
// A job file; one that is good is written out and read again as the same job.
#include "launch/job/job.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  const fuzz::MemoryFile file(data, size);
  return fuzz::reads([&] {
    const std::string resolved = to_yaml(read_job(file.path(), {}));
    const fuzz::MemoryFile again(reinterpret_cast<const uint8_t*>(resolved.data()), resolved.size());
    if (to_yaml(read_job(again.path(), {})) != resolved) std::abort();
  });
}
