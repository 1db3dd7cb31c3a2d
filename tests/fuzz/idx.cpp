// SPDX-License-Identifier: Apache-2.0
// An IDX file of images and one of labels, cut at the first byte's share of the bytes.
#include "runtime/data/idx.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  if (size == 0) return 0;
  const size_t cut = (size - 1) * data[0] / 255;
  const fuzz::MemoryFile images(data + 1, cut), labels(data + 1 + cut, size - 1 - cut);
  const IdxPaths paths{images.path(), labels.path()};
  fuzz::reads([&] {
    std::vector<int32_t> seen;
    probe_idx(paths, 10, seen);
  });
  return fuzz::reads([&] {
    const ImageSet set = read_idx(paths, 0);
    if (static_cast<int64_t>(set.pixels.size()) != set.count() * set.sample_bytes()) std::abort();
  });
}
