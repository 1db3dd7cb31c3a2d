// SPDX-License-Identifier: Apache-2.0
#include "models/inference_session.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "models/model.h"
#include "runtime/checkpoint/weights_hash.h"
#include "runtime/comm/agree.h"
#include "runtime/comm/together.h"
#include "runtime/training/state_io.h"

namespace lockstep {
namespace {

std::vector<Port> per_sample(std::vector<Port> ports) {
  std::erase_if(ports, [](const Port& p) { return !p.read; });
  for (Port& p : ports) {
    Shape sample;
    for (int i = 1; i < p.spec.shape.rank(); ++i) sample.push_back(p.spec.shape[i]);
    p.spec.shape = sample;
  }
  return ports;
}

// One sample's; a scalar's shape has no dimension.
int64_t elements_of(const Port& p) { return p.spec.shape.elements(); }
int64_t bytes_of(const Port& p) { return elements_of(p) * size_of(p.spec.dtype); }

// The ports of so many samples at once. needed: each must be given a tensor.
std::vector<Port> ports_of(std::span<const Port> per_sample, int64_t samples, bool needed) {
  std::vector<Port> ports(per_sample.begin(), per_sample.end());
  for (Port& p : ports) {
    Shape all = {samples};
    for (int i = 0; i < p.spec.shape.rank(); ++i) all.push_back(p.spec.shape[i]);
    p.spec.shape = all;
    p.read = needed;
  }
  return ports;
}

// As many samples as make a batch of work, fewer of those whose values are large.
int64_t batch_to_choose_at(const Program& program) {
  constexpr int64_t kMost = 16, kBytes = int64_t{64} << 20;
  const Graph one = build_program(program, {});
  int64_t largest = 1;
  for (ValueId v = 0; v < one.value_count(); ++v)
    if (one.value(v).batch) largest = std::max(largest, one.value(v).spec.bytes());
  return std::clamp<int64_t>(kBytes / largest, 1, kMost);
}

SessionOptions session_options(const ModelDescription& d, const SafetensorsFile& weights,
                               const InferenceOptions& options, Communicator& comm) {
  SessionOptions s;
  s.objective = make_objective(d.model, d.input, d.config);
  s.programs = make_programs(d.model, d.input, d.config);
  s.config = d.config;
  s.kernels = options.kernels;
  s.kernels.independent = options.independent;
  s.training = false;
  // A description may say any size: memory is taken for no more than there is.
  s.expect_parameters = [&weights, &comm](const ParameterTable& table) {
    together(comm, [&] { expect_model_tensors(table, weights, weights.path()); });
  };
  return s;
}

}  // namespace

std::vector<int64_t> batches_of(std::span<const int64_t> ladder, int64_t samples) {
  std::vector<int64_t> batches;
  while (samples > 0) {
    const auto above = std::lower_bound(ladder.begin(), ladder.end(), samples);
    // Filled up where that computes at most a quarter in vain; else the next smaller batch first.
    const bool fits = above != ladder.end() && (*above - samples) * 4 <= *above;
    batches.push_back(fits || above == ladder.begin() ? *above : *(above - 1));
    samples -= batches.back();
  }
  return batches;
}

InferenceSession::InferenceSession(const ModelDescription& description, const SafetensorsFile& weights,
                                   const InferenceOptions& options, Communicator& comm)
    : description_(description),
      own_(std::make_unique<Session>(session_options(description, weights, options, comm), comm)),
      session_(own_.get()) {
  agree_on(weights);
  together(session_->control(), [&] {
    const bool in_place = options.in_place && session_->model().half.bytes() == 0;
    const auto load = in_place ? place_model_tensors : load_model_tensors;
    load(session_->model(), weights, weights.path());
    weights.await_verified();  // before kernels are timed, which wants a machine that does nothing else
  });
  session_->executor().upload_model();
  compile_programs(options.largest_batch);
}

InferenceSession::InferenceSession(Session& training, const ModelDescription& description,
                                   int64_t largest_batch)
    : description_(description), session_(&training) {
  compile_programs(largest_batch);
}

// Ranks share what is asked: their answers must be one model's.
void InferenceSession::agree_on(const SafetensorsFile& weights) {
  if (session_->control().size() == 1) return;
  const InputShape& in = description_.input;
  require_agreement(
      session_->control(),
      {{"the model's inputs", fmt::format("{}x{}x{}, mean {}, std {}", in.channels, in.height, in.width,
                                          fmt::join(in.mean, " "), fmt::join(in.std, " "))},
       {"the model's classes", fmt::format("{}", fmt::join(description_.class_names, ", "))},
       {fmt::format("the weights ({})", weights.path()), hash_of_weights(weights).substr(0, 12)}});
}

void InferenceSession::compile_programs(int64_t largest_batch) {
  for (Program& p : make_programs(description_.model, description_.input, description_.config)) {
    const std::string name = p.name;
    Asked& asked = asked_[name] = {std::move(p), {}, {}, {}};
    if (largest_batch > 0) compile_ladder(asked, largest_batch);
  }
}

void InferenceSession::compile_ladder(Asked& a, int64_t largest_batch) {
  // Kernels are the same for all batches, and chosen at one that the model alone decides: so bits depend neither on
  // the batch nor on how many are asked for.
  session_->prepare(a.program, batch_to_choose_at(a.program));
  const Plan& one = *session_->program(a.program, 1).plan;
  a.inputs = per_sample(input_ports(one.graph));
  a.outputs = per_sample(output_ports(one.graph));
  constexpr int64_t kActivationBytes = int64_t{1} << 30;
  const int64_t fits = kActivationBytes / std::max<int64_t>(1, one.arena_bytes);
  const int64_t largest = std::clamp<int64_t>(fits, 1, largest_batch);
  for (int64_t batch = 1; batch < largest; batch *= 2) a.ladder.push_back(batch);
  a.ladder.push_back(largest);
  for (int64_t batch : a.ladder) session_->program(a.program, batch);
}

const InferenceSession::Asked& InferenceSession::asked(std::string_view program) const {
  if (const auto it = asked_.find(program); it != asked_.end()) return it->second;
  std::string names;
  for (const auto& [name, asked] : asked_) names += (names.empty() ? "" : ", ") + name;
  throw Error(Exit::usage, "E_PROGRAM", fmt::format("this model has no program \"{}\"", program))
      .hint(fmt::format("it has {}", names));
}

bool InferenceSession::has_output(std::string_view program, std::string_view port) const {
  const auto ports = outputs(program);
  return std::any_of(ports.begin(), ports.end(), [&](const Port& p) { return p.name == port; });
}

void InferenceSession::run(std::string_view program, int64_t samples, std::span<const InputTensor> inputs,
                           std::span<const OutputTensor> outputs) {
  const Asked& a = asked(program);
  std::vector<const void*> from(a.inputs.size()), to(a.outputs.size());
  match_ports(ports_of(a.inputs, samples, true), inputs, from);
  std::vector<InputTensor> results;  // named and sized as inputs are
  for (const OutputTensor& t : outputs) results.push_back(input_tensor(t.port, t.values));
  match_ports(ports_of(a.outputs, samples, false), results, to);

  const std::lock_guard one_at_a_time(mutex_);
  int64_t at = 0;
  for (int64_t batch : batches_of(a.ladder, samples)) {
    run_batch(a, batch, at, std::min(batch, samples - at), from, to);
    at += batch;
  }
}

void InferenceSession::run_batch(const Asked& a, int64_t batch, int64_t at, int64_t count,
                                 std::span<const void* const> inputs, std::span<const void* const> outputs) {
  auto& compiled = session_->program(a.program, batch);
  StepInputs step;
  step.state.training = 0;
  filled_.resize(a.inputs.size());
  for (size_t i = 0; i < a.inputs.size(); ++i) {
    const int64_t bytes = bytes_of(a.inputs[i]);
    const auto* from = static_cast<const std::byte*>(inputs[i]) + at * bytes;
    if (count < batch) {
      filled_[i].resize(static_cast<size_t>(batch * bytes));
      for (int64_t n = 0; n < batch; ++n)
        std::memcpy(filled_[i].data() + n * bytes, from + std::min(n, count - 1) * bytes,
                    static_cast<size_t>(bytes));
      from = filled_[i].data();
    }
    step.set({a.inputs[i].name, a.inputs[i].spec.dtype, from, batch * bytes});
  }
  session_->executor().run(*compiled.bound, step);
  for (size_t i = 0; i < a.outputs.size(); ++i) {
    if (!outputs[i]) continue;
    const int64_t elements = elements_of(a.outputs[i]);
    const float* from = session_->executor().output(*compiled.bound, a.outputs[i].name).as<float>();
    // The caller's, who gave it to be written to.
    auto* to = const_cast<float*>(static_cast<const float*>(outputs[i]));
    std::copy_n(from, count * elements, to + at * elements);
  }
}

void InferenceSession::release(std::string_view program) {
  const Asked& a = asked(program);
  const std::lock_guard one_at_a_time(mutex_);
  const Graph& graph = session_->program(a.program, a.ladder.front()).plan->graph;
  for (ValueId v : graph.values_in(Storage::parameter)) session_->model().release(graph.value(v).name);
}

Score InferenceSession::evaluate(const SampleSource& images, const std::vector<int64_t>& subset,
                                 const ClipTokenizer* tokenizer) {
  LOCKSTEP_ASSERT(session_->options().objective, "the model has programs alone");
  const std::lock_guard one_at_a_time(mutex_);
  return lockstep::evaluate(*session_, images, subset, tokenizer);
}

}  // namespace lockstep
