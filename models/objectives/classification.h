// SPDX-License-Identifier: Apache-2.0
// To tell an image's class: cross entropy over the classes' scores.
#pragma once

#include "runtime/training/config.h"
#include "runtime/training/objective.h"

namespace lockstep {

// Adds the network's nodes; returns the classes' scores, f32 [N, classes].
using Classifier = std::function<ValueId(ModelContext&, ValueId image)>;

// A batch brings kImages and kLabels. Of `config`: loss and label_smoothing.
std::shared_ptr<const Objective> classification(Classifier network, InputShape input,
                                                const TrainingConfig& config);
inline constexpr std::string_view kClassify = "classify";
// The program kClassify: kImages -> log_probabilities f32 [N, classes] and, of a network with a linear layer,
// features f32 [N, K], what its last one reads.
Program classify_program(Classifier network, InputShape input);

}  // namespace lockstep
