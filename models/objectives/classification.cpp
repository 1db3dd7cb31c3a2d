// SPDX-License-Identifier: Apache-2.0
#include "models/objectives/classification.h"

#include <algorithm>

#include "kernels/loss/loss.h"
#include "models/objectives/image_input.h"
#include "runtime/graph/ports.h"

namespace lockstep {
namespace {

ValueId add_scores(ModelContext& context, ValueId image, const Classifier& network, int64_t classes) {
  const ValueId scores = network(context, image);
  const Shape& s = context.builder.spec(scores).shape;
  if (s.rank() != 2 || s[1] != classes)
    throw Error(Exit::config, "E_SHAPE",
                fmt::format("the model ends in {}, the data has {} classes: its last layer must give [N, {}]",
                            s.text(), classes, classes));
  return scores;
}

class Classification : public Objective {
 public:
  Classification(Classifier network, InputShape input, const TrainingConfig& config)
      : network_(std::move(network)),
        input_(std::move(input)),
        nll_(config.loss == "nll"),
        smoothing_(static_cast<float>(config.label_smoothing)) {}

  std::string name() const override { return "classification"; }
  bool counts_right_answers() const override { return true; }

  void forward(ModelContext& context, int64_t batch, NamedValues& values) const override {
    const ValueId image = add_image_input(context, batch, input_);
    values[kLabels] = add_label_input(context, batch);
    values[kResult] = add_scores(context, image, network_, input_.classes);
  }
  ValueId loss(GraphBuilder& b, NamedValues& values, bool training) const override {
    return b.add1("cross_entropy", LossParams{training ? smoothing_ : 0, nll_},
                  {values.at(kResult), values.at(kLabels)});
  }
  ValueId loss_gradient(GraphBuilder& b, const NamedValues& values) const override {
    const ValueId result = values.at(kResult);
    return b.add_as("cross_entropy_grad", LossParams{smoothing_, nll_},
                    {result, values.at(kLabels), values.at(kStepState)}, {{b.spec(result), true, true}})[0];
  }

  // A copy, as the result may be a view of another value.
  void outputs(GraphBuilder& b, NamedValues& values) const override {
    if (sums() > 0) add_output(b, b.elementwise(Elt::copy, {values.at(kResult)}), "scores");
  }
  // The confusion matrix, as Score has it. The class is the first of equal maxima, as cross_entropy counts it.
  size_t sums() const override {
    const int64_t c = input_.classes;
    return c <= Score::kConfusionClasses ? static_cast<size_t>(c * c) : 0;
  }
  void add(const Output& output, std::span<const int32_t> labels, std::span<double> sums) const override {
    if (sums.empty()) return;
    const auto classes = static_cast<size_t>(input_.classes);
    const float* scores = output("scores").as<float>();
    for (size_t i = 0; i < labels.size(); ++i, scores += classes) {
      const auto taken_for = static_cast<size_t>(std::max_element(scores, scores + classes) - scores);
      sums[static_cast<size_t>(labels[i]) * classes + taken_for] += 1;
    }
  }
  void finish(std::span<const double> sums, Score& score) const override {
    const auto classes = static_cast<std::ptrdiff_t>(input_.classes);
    for (auto row = sums.begin(); row != sums.end(); row += classes)
      score.confusion.emplace_back(row, row + classes);
  }

 private:
  Classifier network_;
  InputShape input_;
  bool nll_;
  float smoothing_;
};

// What the model's last linear layer reads, its last hidden layer; kNoValue where there is no linear layer.
ValueId last_hidden_layer(const Graph& g) {
  const auto& nodes = g.nodes();
  const auto last =
      std::find_if(nodes.rbegin(), nodes.rend(), [](const Node& n) { return n.op == "linear"; });
  return last == nodes.rend() ? kNoValue : last->in[0];
}

}  // namespace

std::shared_ptr<const Objective> classification(Classifier network, InputShape input,
                                                const TrainingConfig& config) {
  return std::make_shared<Classification>(std::move(network), std::move(input), config);
}

Program classify_program(Classifier network, InputShape input) {
  Program p;
  p.name = kClassify;
  p.forward = [network = std::move(network), input = std::move(input)](ModelContext& context, int64_t batch,
                                                                       NamedValues& values) {
    values[kResult] = add_scores(context, add_image_input(context, batch, input), network, input.classes);
  };
  p.outputs = [](GraphBuilder& b, NamedValues& values) {
    b.set_scope("outputs");
    // A copy, as the layer may be a view of another value.
    if (const ValueId hidden = last_hidden_layer(b.graph()); hidden != kNoValue)
      add_output(b, b.elementwise(Elt::copy, {hidden}), "features");
    // Of log-probabilities log_softmax is the identity, so models that end in it are served too.
    add_output(b, b.add1("log_softmax", NoParams{}, {values.at(kResult)}), "log_probabilities");
  };
  return p;
}

}  // namespace lockstep
