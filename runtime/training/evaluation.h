// Loss and accuracy over a set of images, split over the ranks.
#pragma once

#include "runtime/data/dataset.h"
#include "runtime/training/session.h"

namespace lockstep {

struct Score {
  double loss = 0;      // mean
  double accuracy = 0;  // 0..1
  int64_t count = 0;
};

// The largest batch that evaluate() runs on a rank.
inline constexpr int64_t kEvaluationBatch = 128;

// The largest that it really runs, on rank 0, for so many images over so many ranks.
int64_t evaluation_batch(int64_t images, int ranks);

// `subset`: indices into the set; empty: all. Every rank takes a contiguous part; sums meet in double over the control
// communicator, so the result is the same on all ranks. Collective.
Score evaluate(Session& session, const ImageSet& images, const std::vector<int64_t>& subset);

}  // namespace lockstep
