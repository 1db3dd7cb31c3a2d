// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/step_graph.h"

#include <algorithm>
#include <bit>
#include <set>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/plan.h"
#include "runtime/graph/ports.h"

namespace lockstep {
namespace {

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

// Those of trained networks that the optimizer's segments do not freeze.
std::vector<ValueId> trained_parameters(const Graph& g, const ParameterTable& table,
                                        const OptimizerParams& optimizer) {
  std::vector<ValueId> trained;
  for (ValueId v : g.values_in(Storage::parameter)) {
    const FlatEntry& e = table.parameter(g.value(v).name);
    if (table.trains(e) && std::none_of(optimizer.segments.begin(), optimizer.segments.end(),
                                        [&](const auto& s) { return s.begin == e.begin && s.frozen; }))
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
  const ValueId parameters = whole_array(g, Storage::parameter, kWholeArray, table.trained_length);
  const ValueId all_gradients = whole_array(g, Storage::gradient, kWholeArray, table.trained_length);
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
  step.out = {whole_array(g, Storage::parameter, kWholeArray, table.trained_length)};
  const auto in_place = [&](Storage storage, const std::string& name) {
    for (auto* list : {&step.in, &step.out})
      list->push_back(whole_array(g, storage, name, table.trained_length));
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

ForwardFunction forward_of(const Objective& objective) {
  return [&objective](ModelContext& context, int64_t batch, NamedValues& values) {
    objective.forward(context, batch, values);
  };
}

Graph build_training(const Objective& objective, const GraphSpec& spec, const ParameterTable& table,
                     const TrainingConfig& config, const TrainingGraphOptions& options) {
  PartialGraph f = build_laid_out(forward_of(objective), spec, true);
  Graph& g = f.graph;
  GraphBuilder b(g);
  b.set_scope("loss");
  const ValueId metrics = objective.loss(b, f.values, true);
  b.set_backward(true);
  const ValueId dresult = objective.loss_gradient(b, f.values);

  const OptimizerParams optimizer = optimizer_params(config, table);
  const std::vector<ValueId> trained = trained_parameters(g, table, optimizer);
  const auto gradients = append_gradients(b, {{f.values.at(kResult), dresult}}, trained);
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
  add_optimizer(b, optimizer, table, f.values.at(kStepState));
  return std::move(g);
}

Program evaluation_program(const std::shared_ptr<const Objective>& objective) {
  Program p;
  p.name = "evaluation";
  p.forward = [objective](ModelContext& context, int64_t batch, NamedValues& values) {
    objective->forward(context, batch, values);
  };
  p.outputs = [objective](GraphBuilder& b, NamedValues& values) {
    b.set_scope("loss");
    add_output(b, objective->loss(b, values, false), "metrics");
    b.set_scope("outputs");
    objective->outputs(b, values);
  };
  return p;
}

}  // namespace lockstep
