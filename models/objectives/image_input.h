// SPDX-License-Identifier: Apache-2.0
// How every objective on images begins.
#pragma once

#include "runtime/training/objective.h"

namespace lockstep {

// Port kImages, u8 [batch, C, H, W], augmented while training, normalised: f32 [batch, C, height, width].
ValueId add_image_input(ModelContext& context, int64_t batch, const InputShape& input);
// Port kLabels, i32 [batch].
ValueId add_label_input(ModelContext& context, int64_t batch);

}  // namespace lockstep
