// SPDX-License-Identifier: Apache-2.0
// Hyperparameters as typed structs: what the job file's `hyperparameters` says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"

namespace lockstep {

struct OptimizerConfig {
  std::string name = "sgd";  // sgd, adam, adamw
  double lr = 0.01;
  double momentum = 0, dampening = 0;
  bool nesterov = false;
  double weight_decay = 0;  // adamw's own default is 0.01, as PyTorch's
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

struct LrScheduleConfig {
  std::string name = "constant";  // constant, step, cosine, linear, one_cycle
  int64_t warmup_steps = 0;       // linear from 0: step s (0-based) has lr * (s+1)/warmup_steps
  int64_t step_size = 0;          // step: every step_size steps ...
  double gamma = 0.1;             // ... lr *= gamma
  double final_lr_scale = 0;      // cosine, linear: lr ends at lr * final_lr_scale
  // one_cycle (Smith, Topin, 2018; torch.optim.lr_scheduler.OneCycleLR, cycle_momentum=False): from lr /
  // div_factor up to lr at step pct_start * total - 1, down to lr / (div_factor * final_div_factor) at the
  // last.
  double pct_start = 0.3, div_factor = 25, final_div_factor = 1e4;
  std::string anneal = "cos";  // cos, linear: the shape of both ways
};

// The first group whose `match` (a glob over the tensor's name) fits decides; no group: the defaults.
struct ParamGroupConfig {
  std::string match;
  double lr_scale = 1;
  std::optional<double> weight_decay;
  bool frozen = false;
  std::string where;
};

// A diffusion model's objective: to tell noise from image in images noised by a step drawn for each sample
// (kernels/diffusion/). No config: classification.
struct DiffusionConfig {
  std::string prediction = "epsilon";  // epsilon, v_prediction, sample: what the model gives
  std::vector<double>
      alphas_cumprod;        // the noise schedule: the image's share of the variance at each timestep
  double snr_gamma = 0;      // min-SNR weighting; 0: every timestep counts alike
  double label_dropout = 0;  // share of samples whose class is hidden, for guidance without a classifier
};

// The parameters' exponential moving average as Hugging Face's diffusers has it (EMAModel in
// training_utils.py, with its names); no decay: no average.
struct EmaConfig {
  std::optional<double> decay;  // at most
  double min_decay = 0;
  int64_t update_after_step = 0;  // until then the average is the parameters themselves
  bool warmup = true;             // rise by power and inv_gamma; else as (1 + n) / (10 + n)
  double power = 2.0 / 3, inv_gamma = 1;
};

struct TrainingConfig {
  std::optional<int64_t> epochs, steps;  // exactly one
  int64_t global_batch_size = 0;
  int64_t gradient_accumulation = 1;
  // Parts that every batch is computed in, however many ranks share them, their gradients summed in one fixed
  // tree: the same bits with any number of ranks. A power of two; none: a part a rank.
  std::optional<int64_t> shards;
  OptimizerConfig optimizer;
  LrScheduleConfig lr_schedule;
  double clip_grad_norm = 0;  // 0: off
  EmaConfig ema;
  std::string precision = "fp32";      // fp32, bf16: of activations and their gradients
  std::string loss = "cross_entropy";  // cross_entropy, nll; of classification
  double label_smoothing = 0;
  uint64_t seed = 0;
  bool shuffle = true;
  bool drop_last = false;
  std::vector<ParamGroupConfig> param_groups;
  // Networks (GraphBuilder::set_network); the model's others are frozen: parameters alone. Empty: all are trained.
  std::vector<std::string> trained;
  std::optional<DiffusionConfig> diffusion;
  std::string recompute = "none";  // none, blocks, auto: activations computed again instead of kept
  double memory_budget_mb = 0;     // auto: of a rank's tensors, in 10^6 bytes
};

struct CheckpointConfig {
  std::optional<int64_t> every_steps, every_epochs;  // neither: at the end only
  int64_t keep = 2;                                  // 0: all
  std::string best_by;  // "", validation_loss, validation_accuracy: the best is kept beside the newest
};

// Ends training before its last step: where a metric has got somewhere, or gets no further.
struct StopConfig {
  std::string metric;        // validation_loss, validation_accuracy, test_loss, test_accuracy; "": never
  std::optional<double> at;  // a loss of at most that, an accuracy of at least that
  std::optional<int64_t> patience;  // looks in a row without one that is better by more than min_delta
  double min_delta = 0;
  std::optional<int64_t> every_steps, every_epochs;  // between looks; neither: an epoch
};

DType activation_dtype(const TrainingConfig& config);
// Parts of a step that one of so many ranks computes, one after the other.
inline int64_t micro_batches(const TrainingConfig& config, int ranks) {
  return config.shards ? *config.shards / ranks : config.gradient_accumulation;
}
// EMAModel.get_decay after so many optimizer steps, the first being 1. Needs `decay`.
double ema_decay(const EmaConfig& ema, int64_t optimizer_steps);
// The learning rate of a step (0-based) out of total_steps.
double lr_at(const LrScheduleConfig& schedule, double lr, int64_t step, int64_t total_steps);

}  // namespace lockstep
