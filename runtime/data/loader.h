// SPDX-License-Identifier: Apache-2.0
// Copies batches together ahead of their use, on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/data/sample_order.h"
#include "runtime/data/sample_source.h"

namespace lockstep {

struct Batch {
  std::span<const uint8_t> images;  // [count, C, H, W]
  std::span<const int32_t> labels;  // [count]
  std::span<const int32_t>
      tokens;  // [count, T]; empty where captions are not asked for; or their CaptionTokens' words
  int64_t count = 0;
};

// Makes the tokens of a sample's caption in an epoch: all `length` of them, on the loader's thread. Or what else a caption
// becomes, in as many words of 32 bits.
struct CaptionTokens {
  int64_t length = 0;  // T; 0: none are made
  std::function<void(int64_t epoch, int64_t sample, std::span<int32_t> out)> write = {};
};

// request() and next() may be called from one thread or from one each.
class Loader {
 public:
  // subset: indices into the set that make up this split (after validation_fraction); empty: all. The
  // order counts positions within it. At most `depth` batches of at most `max_batch` samples are in flight:
  // requested and not yet handed out by next(). tokens: of samples by their place in the set.
  Loader(std::shared_ptr<const SampleSource> set, std::vector<int64_t> subset, SampleOrder order,
         int64_t max_batch, int depth = 4, CaptionTokens tokens = {});
  ~Loader();
  // Asks for positions [begin, begin + count) of an epoch; count 0 is legal. Blocks only when `depth` are
  // in flight already. Allocates nothing.
  void request(int64_t epoch, int64_t begin, int64_t count);
  // The next batch in request order; valid until the next call of next(). Throws what went wrong while that
  // batch was made; the batches after it are not affected. Without a request in flight: Error internal.
  const Batch& next();
  // Seconds next() has waited since the last call of this function. To be called by next()'s thread.
  double take_wait_seconds();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep
