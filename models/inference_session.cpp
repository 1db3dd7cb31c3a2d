// SPDX-License-Identifier: Apache-2.0
#include "models/inference_session.h"

#include <algorithm>
#include <cstring>

#include "models/model.h"
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

const Port& find_port(std::span<const Port> ports, std::string_view name) {
  for (const Port& p : ports)
    if (p.name == name) return p;
  throw Error(Exit::usage, "E_PORT", fmt::format("no port is called \"{}\"", name))
      .hint("the ports are " + text_of(ports));
}

// One sample's; a scalar's shape has no dimension.
int64_t sample_bytes(const Port& p) { return p.spec.shape.elements() * size_of(p.spec.dtype); }

void expect_bytes(const Port& p, DType dtype, int64_t bytes, int64_t samples) {
  if (dtype != p.spec.dtype || bytes != samples * sample_bytes(p))
    throw Error(Exit::usage, "E_PORT",
                fmt::format("{} takes {} {} of {} bytes each, was given {} bytes of {}", p.name, samples,
                            name(p.spec.dtype), sample_bytes(p), bytes, name(dtype)));
}

SessionOptions session_options(const ModelDescription& d, const InferenceOptions& options) {
  SessionOptions s;
  s.model = make_model(d.model);
  s.input = d.input;
  s.config = d.config;
  s.kernels = options.kernels;
  s.training = false;
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
      own_(std::make_unique<Session>(session_options(description, options), comm)),
      session_(own_.get()) {
  load_model_tensors(session_->model(), weights, weights.path());
  session_->executor().upload_model();
  compile_ladder(options);
}

InferenceSession::InferenceSession(Session& training, const ModelDescription& description,
                                   const InferenceOptions& options)
    : description_(description), session_(&training) {
  compile_ladder(options);
}

void InferenceSession::compile_ladder(const InferenceOptions& options) {
  if (options.largest_batch == 0) return;
  // Kernels are those of the largest batch, for all of them: so bits do not depend on the batch.
  session_->prepare_prediction(options.largest_batch);
  const Plan& one = *session_->prediction(1).plan;
  inputs_ = per_sample(input_ports(one.graph));
  outputs_ = per_sample(output_ports(one.graph));
  const int64_t most = options.activation_bytes > 0
                           ? options.activation_bytes / std::max<int64_t>(1, one.arena_bytes)
                           : INT64_MAX;
  const int64_t largest = std::clamp<int64_t>(options.largest_batch, 1, std::max<int64_t>(1, most));
  for (int64_t batch = 1; batch < largest; batch *= 2) ladder_.push_back(batch);
  ladder_.push_back(largest);
  for (int64_t batch : ladder_) session_->prediction(batch);
}

void InferenceSession::expect_program(std::string_view program) const {
  if (program != this->program())
    throw Error(Exit::usage, "E_PROGRAM", fmt::format("this model has no program \"{}\"", program))
        .hint(fmt::format("it has {}", this->program()));
}

std::span<const Port> InferenceSession::inputs(std::string_view program) const {
  expect_program(program);
  return inputs_;
}
std::span<const Port> InferenceSession::outputs(std::string_view program) const {
  expect_program(program);
  return outputs_;
}
bool InferenceSession::has_output(std::string_view program, std::string_view port) const {
  const auto ports = outputs(program);
  return std::any_of(ports.begin(), ports.end(), [&](const Port& p) { return p.name == port; });
}

void InferenceSession::run(std::string_view program, int64_t samples, std::span<const InputTensor> inputs,
                           std::span<const OutputTensor> outputs) {
  expect_program(program);
  for (const InputTensor& t : inputs) expect_bytes(find_port(inputs_, t.port), t.dtype, t.bytes, samples);
  for (const Port& p : inputs_)
    if (std::none_of(inputs.begin(), inputs.end(), [&](const InputTensor& t) { return t.port == p.name; }))
      throw Error(Exit::usage, "E_PORT", fmt::format("{} was given no tensor", p.name));
  for (const OutputTensor& t : outputs)
    expect_bytes(find_port(outputs_, t.port), DType::f32, static_cast<int64_t>(t.values.size_bytes()),
                 samples);

  const std::lock_guard one_at_a_time(mutex_);
  int64_t at = 0;
  for (int64_t batch : batches_of(ladder_, samples)) {
    run_batch(batch, at, std::min(batch, samples - at), inputs, outputs);
    at += batch;
  }
}

void InferenceSession::run_batch(int64_t batch, int64_t at, int64_t count,
                                 std::span<const InputTensor> inputs, std::span<const OutputTensor> outputs) {
  auto& compiled = session_->prediction(batch);
  StepInputs step;
  step.state.training = 0;
  for (const InputTensor& t : inputs) {
    const int64_t bytes = sample_bytes(find_port(inputs_, t.port));
    const auto* from = static_cast<const std::byte*>(t.data) + at * bytes;
    if (count < batch) {
      std::vector<std::byte>& filled = filled_[std::string(t.port)];
      filled.resize(static_cast<size_t>(batch * bytes));
      for (int64_t i = 0; i < batch; ++i)
        std::memcpy(filled.data() + i * bytes, from + std::min(i, count - 1) * bytes,
                    static_cast<size_t>(bytes));
      from = filled.data();
    }
    step.set({t.port, t.dtype, from, batch * bytes});
  }
  session_->executor().run(*compiled.bound, step);
  for (const OutputTensor& t : outputs) {
    const int64_t elements = find_port(outputs_, t.port).spec.shape.elements();
    const float* from = session_->executor().output(*compiled.bound, std::string(t.port)).as<float>();
    std::copy_n(from, count * elements, t.values.data() + at * elements);
  }
}

Score InferenceSession::evaluate(const ImageSet& images, const std::vector<int64_t>& subset) {
  const std::lock_guard one_at_a_time(mutex_);
  return lockstep::evaluate(*session_, images, subset);
}

}  // namespace lockstep
