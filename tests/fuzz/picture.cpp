// SPDX-License-Identifier: Apache-2.0
// A PNG or JPEG, as grey and as colour, resized and cropped.
#include "runtime/data/dataset.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  const fuzz::MemoryFile file(data, size);
  for (int64_t channels : {1, 3})
    fuzz::reads([&] {
      const Image image = read_image(file.path(), channels, {{16, 16}, {8, 8}}, 1 << 20);
      if (image.pixels.size() != static_cast<size_t>(channels * 64)) std::abort();
    });
  return 0;
}
