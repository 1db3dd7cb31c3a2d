// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/step_graph.h"

#include <algorithm>
#include <bit>
#include <set>

#include "kernels/core/step_state.h"
#include "kernels/diffusion/label_dropout.h"
#include "kernels/diffusion/noise.h"
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/loss/loss.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"
#include "runtime/graph/plan.h"

namespace lockstep {
namespace {

struct Forward {
  Graph graph;
  ValueId labels = kNoValue, step_state = kNoValue;
  ValueId result = kNoValue;  // scores, or the diffusion model's prediction
  ValueId target = kNoValue, weights = kNoValue, timesteps = kNoValue;  // diffusion

  // Values that stay when the graph is copied.
  std::vector<ValueId*> values() { return {&labels, &step_state, &result, &target, &weights, &timesteps}; }
};

DiffusionNoiseParams noise_params(const DiffusionConfig& d) {
  const auto prediction = d.prediction == "v_prediction" ? Prediction::v_prediction
                          : d.prediction == "sample"     ? Prediction::sample
                                                         : Prediction::epsilon;
  return {d.alphas_cumprod, prediction, d.snr_gamma};
}

void expect_result(const StepGraphSpec& spec, const Shape& s) {
  const auto& in = spec.input;
  const Shape image{s[0], in.channels, in.height, in.width};
  if (spec.diffusion ? !(s == image) : s.rank() != 2 || s[1] != in.classes)
    throw Error(Exit::config, "E_SHAPE",
                spec.diffusion
                    ? fmt::format("the model ends in {}, its images are {}", s.text(), image.text())
                    : fmt::format("the model ends in {}, the data has {} classes: its last layer must give "
                                  "[N, {}]",
                                  s.text(), in.classes, in.classes));
}

// What labels may be: the data's classes and, where some are hidden, the number that says so.
int64_t label_count(const StepGraphSpec& spec) {
  return spec.input.classes + (spec.diffusion && spec.diffusion->label_dropout > 0 ? 1 : 0);
}

enum class Purpose : uint8_t { training, evaluation, prediction };

Forward forward(const StepGraphSpec& spec, Purpose purpose) {
  const bool training = purpose == Purpose::training;
  Forward f;
  GraphBuilder b(f.graph);
  const auto& in = spec.input;
  const Extent size = training ? in.training_images() : Extent{in.height, in.width};
  ValueId images =
      b.input(kImages, {DType::u8, {spec.batch, in.channels, size.height, size.width}, Layout::plain}, true);
  if (purpose != Purpose::prediction)
    f.labels = b.input(kLabels, {DType::i32, {spec.batch}, Layout::plain}, true);
  f.step_state =
      b.input(kStepState, {DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain}, false);
  b.set_scope("input");
  if (training && in.augment.any())
    images = b.add1("image_augment",
                    ImageAugmentParams{in.augment.flip, in.augment.crop_padding, in.height, in.width},
                    {images, f.step_state});
  ValueId x = b.add1("image_normalize", ImageNormalizeParams{in.mean, in.std}, {images});
  ModelContext context{b, training, spec.ranks, label_count(spec), f.step_state};
  if (const auto& d = spec.diffusion) {
    const auto noised = b.add("diffusion_noise", noise_params(*d), {x, f.step_state});
    x = noised[0], f.target = noised[1], f.timesteps = noised[2], f.weights = noised[3];
    context.timesteps = f.timesteps;
    context.labels = f.labels;
    if (training && d->label_dropout > 0)
      context.labels =
          b.add1("label_dropout",
                 LabelDropoutParams{static_cast<float>(d->label_dropout), static_cast<int32_t>(in.classes)},
                 {f.labels, f.step_state});
  }
  f.result = spec.model(context, x);
  expect_result(spec, b.spec(f.result).shape);
  return f;
}

// The model alone, from noisy images, timesteps and labels that the host hands in.
Forward denoiser(const StepGraphSpec& spec) {
  Forward f;
  GraphBuilder b(f.graph);
  const auto& in = spec.input;
  const ValueId images =
      b.input(kImages, {DType::f32, {spec.batch, in.channels, in.height, in.width}, Layout::plain}, true);
  f.timesteps = b.input(kTimesteps, {DType::f32, {spec.batch}, Layout::plain}, true);
  f.labels = b.input(kLabels, {DType::i32, {spec.batch}, Layout::plain}, true);
  f.step_state =
      b.input(kStepState, {DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain}, false);
  ModelContext context{b, false, spec.ranks, label_count(spec), f.step_state};
  context.timesteps = f.timesteps;
  context.labels = f.labels;
  f.result = spec.model(context, b.elementwise(Elt::copy, {images}));
  expect_result(spec, b.spec(f.result).shape);
  return f;
}

Forward laid_out(const StepGraphSpec& spec, Forward f) {
  f.graph = assign_layouts(f.graph, f.values(), spec.device, spec.activations);
  return f;
}

Forward for_evaluation(const StepGraphSpec& spec, Forward f) {
  f = laid_out(spec, std::move(f));
  if (spec.use_ema)
    for (ValueId v : f.graph.values_in(Storage::parameter)) f.graph.value(v).storage = Storage::ema;
  return f;
}

// The loss's sum over this rank's samples and a count, and (training) its gradient for the model's result.
ValueId add_loss(GraphBuilder& b, Forward& f, const TrainingConfig& config, float smoothing) {
  b.set_scope("loss");
  if (config.diffusion) {
    f.target = b.reorder(f.target, b.spec(f.result).layout);
    return b.add1("weighted_mse", NoParams{}, {f.result, f.target, f.weights});
  }
  return b.add1("cross_entropy", LossParams{smoothing, config.loss == "nll"}, {f.result, f.labels});
}
ValueId add_loss_gradient(GraphBuilder& b, const Forward& f, const TrainingConfig& config, float smoothing) {
  const std::vector<OutputRule> like = {{b.spec(f.result), true, true}};
  if (config.diffusion)
    return b.add_as("weighted_mse_grad", NoParams{}, {f.result, f.target, f.weights, f.step_state}, like)[0];
  return b.add_as("cross_entropy_grad", LossParams{smoothing, config.loss == "nll"},
                  {f.result, f.labels, f.step_state}, like)[0];
}

void add_output(Graph& g, ValueId v, const char* name) {
  g.value(v).storage = Storage::output;
  g.value(v).name = name;
}

// What the model's last linear layer reads, its last hidden layer; kNoValue where there is no linear layer.
ValueId last_hidden_layer(const Graph& g) {
  const auto& nodes = g.nodes();
  const auto last =
      std::find_if(nodes.rbegin(), nodes.rend(), [](const Node& n) { return n.op == "linear"; });
  return last == nodes.rend() ? kNoValue : last->in[0];
}

ValueId whole_array(Graph& g, Storage storage, const std::string& name, int64_t length) {
  Value v;
  v.name = name;
  v.spec = {DType::f32, {length}, Layout::plain};
  v.storage = storage;
  return g.add_value(std::move(v));
}

// loss += diverged; diverged = 0 * loss: once a loss was not finite, no later one is, and no step changes
// anything.
void add_divergence_guard(Graph& g) {
  ElementwiseParams guard;
  guard.inputs = 2;
  guard.code = {{Elt::add, 0, 1}, {Elt::scale, 2, 0, 0.0f}};
  guard.outputs = {2, 3};
  Node n;
  n.op = "elementwise";
  n.params = guard;
  n.name = kDiverged;
  n.backward = true;
  for (auto* values : {&n.in, &n.out})
    *values = {whole_array(g, Storage::gradient, kMetrics, 1),
               whole_array(g, Storage::gradient, kDiverged, 1)};
  g.add_node(std::move(n));
}

// The value is a sum of gradients in array `level` (TrainingGraphOptions).
void place_sum(Value& v, const std::string& tensor, int level) {
  v.storage = level == 0 ? Storage::gradient : Storage::partial_sum;
  v.name = tensor;
  v.level = level;
}

// A tensor's gradient plus the partial sums that the options name.
Node add_partial_sums(Graph& g, ValueId gradient, const std::string& tensor,
                      const TrainingGraphOptions& options) {
  const auto sum_in = [&](int level) {
    Value v = g.value(gradient);
    place_sum(v, tensor, level);
    return g.add_value(std::move(v));
  };
  Node n;
  n.op = "elementwise";
  n.name = tensor;
  n.backward = true;
  n.in = {gradient};
  for (int level = 0; level < static_cast<int>(std::bit_width(options.add)); ++level)
    if (options.add >> level & 1) n.in.push_back(sum_in(level));
  ElementwiseParams sum;
  sum.inputs = static_cast<int>(n.in.size());
  // Slots hold the inputs, then each instruction's result.
  for (int i = 1; i < sum.inputs; ++i) sum.code.push_back({Elt::add, i == 1 ? 0 : sum.inputs + i - 2, i});
  sum.outputs = {2 * sum.inputs - 2};
  n.params = sum;
  n.out = {sum_in(options.store)};
  return n;
}

struct Bucket {
  int64_t begin = 0, end = 0;
  std::set<std::string> waiting;  // tensors whose gradients are not yet done
};

// Slices of the flat gradient array, at least bucket_bytes each but the last; the metrics lie at the front of
// the first. Frozen tensors between others travel along.
std::vector<Bucket> make_buckets(const ParameterTable& table, const std::set<std::string>& trained,
                                 int64_t bucket_bytes) {
  std::vector<Bucket> buckets;
  Bucket current{0, kMetricsFloats, {kMetrics}};
  for (const auto& e : table.parameters) {
    if (!trained.count(e.name)) continue;
    if ((current.end - current.begin) * 4 >= bucket_bytes) {
      buckets.push_back(current);
      current = {e.begin, e.begin, {}};
    }
    current.end = e.end();
    current.waiting.insert(e.name);
  }
  buckets.push_back(current);
  return buckets;
}

// Those that the optimizer's segments do not freeze.
std::vector<ValueId> trained_parameters(const Graph& g, const ParameterTable& table,
                                        const OptimizerParams& optimizer) {
  std::vector<ValueId> trained;
  for (ValueId v : g.values_in(Storage::parameter)) {
    const int64_t begin = table.parameter(g.value(v).name).begin;
    if (std::none_of(optimizer.segments.begin(), optimizer.segments.end(),
                     [&](const auto& s) { return s.begin == begin && s.frozen; }))
      trained.push_back(v);
  }
  return trained;
}

// The nodes again in their order, with what follows as soon as a result is there: adding it to the sum of the
// micro-batches before, and the allreduce of the bucket that waited for it last. Buckets start in order, the
// same on every rank. results: the tensor's name (or the metrics) by value.
void send_results(Graph& g, const std::map<ValueId, std::string>& results, std::vector<Bucket> buckets,
                  const TrainingGraphOptions& options) {
  size_t next_bucket = 0;
  const auto send_bucket = [&] {
    const Bucket& bucket = buckets[next_bucket];
    Node r;
    r.op = "allreduce";
    r.kind = NodeKind::allreduce;
    r.params = BucketParams{bucket.begin, bucket.end};
    r.name = fmt::format("bucket {}", next_bucket++);
    r.backward = true;
    g.nodes().push_back(std::move(r));
  };
  std::vector<Node> nodes;
  std::swap(nodes, g.nodes());
  for (Node& n : nodes) {
    const auto outputs = n.out;
    g.nodes().push_back(std::move(n));
    for (ValueId v : outputs) {
      const auto it = results.find(v);
      if (it == results.end()) continue;
      const std::string& name = it->second;
      if (options.add != 0)
        g.add_node(add_partial_sums(g, v, name, options));
      else
        place_sum(g.value(v), name, options.store);
      for (auto& bucket : buckets) bucket.waiting.erase(name);
      while (next_bucket < buckets.size() && buckets[next_bucket].waiting.empty()) send_bucket();
    }
  }
  LOCKSTEP_ASSERT(next_bucket == buckets.size());
}

// One node for all parameters, over the flat arrays.
void add_optimizer(GraphBuilder& b, const OptimizerParams& optimizer, const ParameterTable& table,
                   ValueId step_state) {
  Graph& g = b.graph();
  b.set_scope("optimizer");
  b.set_backward(true);
  const ValueId parameters = whole_array(g, Storage::parameter, kWholeArray, table.length);
  const ValueId all_gradients = whole_array(g, Storage::gradient, kWholeArray, table.length);
  const ValueId all_metrics = whole_array(g, Storage::gradient, kMetrics, 1);
  ValueId norm = all_metrics;  // not read unless clipping is on
  if (optimizer.clip_norm > 0)
    norm = b.add_as("grad_norm", optimizer, {all_gradients}, {{{DType::f32, {1}, Layout::plain}, false}})[0];
  Node step;
  step.op = "optimizer_step";
  step.params = optimizer;
  step.name = "optimizer";
  step.backward = true;
  step.in = {parameters, all_gradients, step_state, all_metrics, norm};
  step.out = {whole_array(g, Storage::parameter, kWholeArray, table.length)};
  const auto in_place = [&](Storage storage, const std::string& name) {
    for (auto* list : {&step.in, &step.out}) list->push_back(whole_array(g, storage, name, table.length));
  };
  for (int i = 0; i < optimizer.state_count(); ++i) in_place(Storage::state, fmt::format("*{}", i));
  if (optimizer.ema) in_place(Storage::ema, kWholeArray);
  if (optimizer.half) {
    in_place(Storage::half, kWholeArray);
    for (const auto* list : {&step.in, &step.out}) g.value(list->back()).spec.dtype = DType::bf16;
  }
  g.add_node(std::move(step));
}

}  // namespace

Graph build_forward(const StepGraphSpec& spec, bool training) {
  return forward(spec, training ? Purpose::training : Purpose::evaluation).graph;
}

Graph build_training(const StepGraphSpec& spec, const ParameterTable& table, const TrainingConfig& config,
                     const TrainingGraphOptions& options) {
  Forward f = laid_out(spec, forward(spec, Purpose::training));
  Graph& g = f.graph;
  GraphBuilder b(g);
  const auto smoothing = static_cast<float>(config.label_smoothing);
  const ValueId metrics = add_loss(b, f, config, smoothing);
  b.set_backward(true);
  const ValueId dresult = add_loss_gradient(b, f, config, smoothing);

  const OptimizerParams optimizer = optimizer_params(config, table);
  const std::vector<ValueId> trained = trained_parameters(g, table, optimizer);
  const auto gradients = append_gradients(b, {{f.result, dresult}}, trained);
  std::map<ValueId, std::string> results = {{metrics, kMetrics}};
  for (auto [parameter, d] : gradients) {
    LOCKSTEP_ASSERT(d != kNoValue, "the loss does not depend on {}", g.value(parameter).name);
    LOCKSTEP_ASSERT(results.emplace(d, g.value(parameter).name).second, "two parameters share a gradient");
  }
  std::set<std::string> names;
  for (ValueId v : trained) names.insert(g.value(v).name);
  auto buckets = make_buckets(table, names, options.bucket_bytes);
  if (!options.finish || spec.ranks == 1) buckets.clear();
  send_results(g, results, std::move(buckets), options);
  if (!options.finish) return std::move(g);

  if (spec.device == Device::cuda) add_divergence_guard(g);
  add_optimizer(b, optimizer, table, f.step_state);
  return std::move(g);
}

Graph build_evaluation(const StepGraphSpec& spec, const TrainingConfig& config) {
  Forward f = for_evaluation(spec, forward(spec, Purpose::evaluation));
  GraphBuilder b(f.graph);
  add_output(f.graph, add_loss(b, f, config, 0), "metrics");
  if (config.diffusion) {
    b.set_scope("outputs");
    add_output(f.graph, b.reorder(f.result, Layout::plain), "prediction");
    add_output(f.graph, b.reorder(f.target, Layout::plain), "target");
    add_output(f.graph, f.timesteps, "timesteps");
  }
  return std::move(f.graph);
}

Graph build_prediction(const StepGraphSpec& spec) {
  Forward f = for_evaluation(spec, spec.diffusion ? denoiser(spec) : forward(spec, Purpose::prediction));
  GraphBuilder b(f.graph);
  b.set_scope("outputs");
  if (spec.diffusion) {
    add_output(f.graph, b.reorder(f.result, Layout::plain), "prediction");
    return std::move(f.graph);
  }
  // A copy, as the layer may be a view of another value.
  if (const ValueId hidden = last_hidden_layer(f.graph); hidden != kNoValue)
    add_output(f.graph, b.reorder(b.elementwise(Elt::copy, {hidden}), Layout::plain), "features");
  // Of log-probabilities log_softmax is the identity, so models that end in it are served too.
  add_output(f.graph, b.reorder(b.add1("log_softmax", NoParams{}, {f.result}), Layout::plain),
             "log_probabilities");
  return std::move(f.graph);
}

}  // namespace lockstep
