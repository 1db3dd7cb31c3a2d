// SPDX-License-Identifier: Apache-2.0
// What a model is trained for: the ports that a batch brings, the loss, how an evaluation is scored.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/data/dataset.h"
#include "runtime/graph/program.h"

namespace lockstep {

struct InputShape {
  int64_t channels = 0, height = 0, width = 0, classes = 0;
  std::vector<float> mean, std;  // one per channel
  AugmentConfig augment;         // while training
  Extent uncropped;              // of training images, where augment.random_crop makes height x width of them
  bool encoded = false;  // training batches bring what frozen networks make of images (Objective::encoders)

  Extent training_images() const { return uncropped.given() ? uncropped : Extent{height, width}; }
};

struct Score {
  double loss = 0;                 // mean, as it is trained on but for label smoothing
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
  // Classification: confusion[i][j] samples of class i were taken for class j. Empty of other objectives, and of more
  // classes than kConfusionClasses.
  static constexpr int64_t kConfusionClasses = 100;
  std::vector<std::vector<int64_t>> confusion;
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual std::string name() const = 0;  // as a job says it
  // From the ports of a batch to the model's result, kResult; Program::forward.
  virtual void forward(ModelContext&, int64_t batch, NamedValues&) const = 0;
  // f32 [2], plain: the loss's sum over this rank's samples, and how many are right where samples can be.
  // Labels are smoothed while training only.
  virtual ValueId loss(GraphBuilder&, NamedValues&, bool training) const = 0;
  // The gradient of the mean over the global batch for kResult.
  virtual ValueId loss_gradient(GraphBuilder&, const NamedValues&) const = 0;
  // Programs of frozen networks, each of one input and one output, which a batch of an encoded training set brings under the
  // output's name in the input's place.
  virtual std::vector<Program> encoders() const { return {}; }
  // Whether the loss's second number means anything.
  virtual bool counts_right_answers() const = 0;

  // What an evaluation looks at beside the loss: outputs of its graph, ...
  virtual void outputs(GraphBuilder&, NamedValues&) const {}
  // ... which are summed, so many numbers, over batches and ranks, ...
  virtual size_t sums() const { return 0; }
  using Output = std::function<const View&(const std::string& name)>;
  virtual void add(const Output&, std::span<const int32_t> /*labels*/, std::span<double>) const {}
  // ... and become part of the score.
  virtual void finish(std::span<const double>, Score&) const {}
};

// `objective` outlives it.
ForwardFunction forward_of(const Objective& objective);
// The program "evaluation": output "metrics", what loss() gives, and the objective's own.
Program evaluation_program(const std::shared_ptr<const Objective>& objective);

}  // namespace lockstep
