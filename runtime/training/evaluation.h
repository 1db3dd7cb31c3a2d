// SPDX-License-Identifier: Apache-2.0
// Loss and accuracy over a set of images, split over the ranks.
#pragma once

#include <array>

#include "runtime/data/dataset.h"
#include "runtime/training/session.h"

namespace lockstep {

struct Score {
  double loss = 0;                 // mean; of diffusion the weighted one that is trained on
  std::optional<double> accuracy;  // 0..1; of classification
  int64_t count = 0;
  // Diffusion: mean squared errors, unweighted, of tenths of the timesteps, from the least noise to the most.
  // The noise and timestep of an image are functions of the seed and its index, so that scores can be
  // compared.
  struct Band {
    double loss = 0;
    int64_t count = 0;
  };
  static constexpr int kBands = 10;
  std::optional<std::array<Band, kBands>> bands;
};

// The largest batch that evaluate() runs on rank 0, for so many images over so many ranks: as many samples as
// a training step has at once, so that it needs no memory that the step does not; 16 at least, 128 at most.
int64_t evaluation_batch(const TrainingConfig& config, int64_t images, int ranks);

// `subset`: indices into the set; empty: all. Every rank takes a contiguous part; sums meet in double over
// the control communicator, so the result is the same on all ranks. Collective. AgreedError diverged (80)
// E_NOT_FINITE where the loss is infinite or NaN.
Score evaluate(Session& session, const ImageSet& images, const std::vector<int64_t>& subset);

}  // namespace lockstep
