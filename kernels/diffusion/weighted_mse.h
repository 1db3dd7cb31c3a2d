// SPDX-License-Identifier: Apache-2.0
// Mean squared error by sample, weighted: the loss of a diffusion model (Ho, Jain, Abbeel: arXiv 2006.11239,
// equation 14; weights: Hang et al., arXiv 2303.09556).
//
// Op                     inputs                               outputs
//   weighted_mse         pred, target, weights                metrics [2] f32: sum of losses, samples N
//   weighted_mse_grad    pred, target, weights, step_state    dpred
//   (all with NoParams)
// pred [N, ...] of f32 or bf16, target f32, of one shape and layout (any); weights [N] f32 plain; dpred is
// like pred. With E the elements of a sample:
//   loss of a sample = weight * (1/E) sum (pred - target)^2
//   dpred            = 2 weight (pred - target) / (E * global_samples)      (StepState)
// The loss sum covers this rank's N samples, carried in double in an order that only shape and layout decide;
// dividing by the global count, which is the sum of the second metric over ranks, is left to whoever has it.
// Padding lanes of dpred are 0.
#pragma once
