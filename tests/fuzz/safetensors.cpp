// SPDX-License-Identifier: Apache-2.0
// A safetensors file; every byte of every tensor of a good one can be read.
#include "runtime/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  const fuzz::MemoryFile file(data, size);
  return fuzz::reads([&] {
    unsigned sum = 0;
    const auto opened = SafetensorsFile::open(file.path());
    for (const StoredTensor& t : opened->tensors())
      for (std::byte b : t.bytes) sum += static_cast<unsigned>(b);
    static volatile unsigned seen;
    seen = sum;
  });
}
