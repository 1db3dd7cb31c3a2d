// SPDX-License-Identifier: Apache-2.0
// model.json.
#include "launch/job/model_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  const fuzz::MemoryFile file(data, size);
  return fuzz::reads([&] { read_model_file(file.path()); });
}
