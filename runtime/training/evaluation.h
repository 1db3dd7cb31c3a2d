// SPDX-License-Identifier: Apache-2.0
// Loss and accuracy over a set of images, split over the ranks.
#pragma once

#include "runtime/data/dataset.h"
#include "runtime/text/clip_tokenizer.h"
#include "runtime/training/session.h"

namespace lockstep {

// The largest batch that evaluate() runs on rank 0, for so many images over so many ranks: as many samples as
// a training step has at once, so that it needs no memory that the step does not; 16 at least, 128 at most.
int64_t evaluation_batch(const TrainingConfig& config, int64_t images, int ranks);

// `subset`: indices into the set; empty: all. Every rank takes a contiguous part; sums meet in double over
// the control communicator, so the result is the same on all ranks. Collective. AgreedError diverged (80)
// E_NOT_FINITE where the loss is infinite or NaN. tokenizer: of a model that reads captions, which `images` has then;
// else null.
Score evaluate(Session& session, const SampleSource& images, const std::vector<int64_t>& subset,
               const ClipTokenizer* tokenizer = nullptr);

}  // namespace lockstep
