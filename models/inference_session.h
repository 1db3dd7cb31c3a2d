// SPDX-License-Identifier: Apache-2.0
// A trained model ready to be asked: named tensors in, named tensors out, any number of samples. It needs no
// job and no data set.
//
// Programs and their ports, plain and without the samples' dimension:
//   classify  images u8 [C, H, W]                                  -> log_probabilities f32 [classes],
//             and of a model with a linear layer what its last one reads: features f32 [K]
//   denoise   images f32 [C, H, W], timesteps f32 [], and of a
//             model with classes labels i32 [], of one that reads
//             text text f32 [T, W]                                  -> prediction f32 [C, H, W]
//   encode_text  tokens i32 [T]                                     -> text f32 [T, W]
//   decode       of a model that draws latents: what denoise takes
//             as images, f32 [c, h, w]                              -> image f32 [C, H, W]
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/model_description.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/training/evaluation.h"
#include "runtime/training/session.h"

namespace lockstep {

struct InferenceOptions {
  KernelChoice kernels = {};
  // Compiled on opening: batches of 1, 2, 4, ... and of so many samples, or of as many as have a gigabyte of
  // activations. 0: none, for evaluate() alone.
  int64_t largest_batch = 1;
  // KernelChoice::independent: a sample's bits do not depend on what shares its batch.
  bool independent = true;
  // F32 weights of a net that computes in fp32 are read where they lie in their file, to which nobody may write meanwhile;
  // others are copied.
  bool in_place = false;
};

// Where an output goes: f32, as many as the port has for all samples.
struct OutputTensor {
  std::string_view port;
  std::span<float> values;
};
template <class Values>
InputTensor input_tensor(std::string_view port, const Values& values) {
  using T = std::remove_cvref_t<decltype(*values.data())>;
  return {port, port_dtype<T>(), values.data(), static_cast<int64_t>(values.size() * sizeof(T))};
}

class InferenceSession {
 public:
  // Collective over `comm`, which outlives the session, as do `weights` that are read in place: ranks choose the same
  // kernels. Throws on all ranks what load_model_tensors() throws for weights of another model, what `weights` are found
  // to be (await_verified()), and Error(Exit::disagree) where ranks have other models.
  InferenceSession(const ModelDescription& description, const SafetensorsFile& weights,
                   const InferenceOptions& options, Communicator& comm);
  // The weights of a session in training as they are now. Collective at first use.
  InferenceSession(Session& training, const ModelDescription& description, int64_t largest_batch);

  const ModelDescription& description() const { return description_; }
  Communicator& comm() { return session_->control(); }
  bool has_program(std::string_view program) const { return asked_.contains(program); }
  // Shapes are per sample. Error usage (64) for a program that it does not have.
  std::span<const Port> inputs(std::string_view program) const { return asked(program).inputs; }
  std::span<const Port> outputs(std::string_view program) const { return asked(program).outputs; }
  bool has_output(std::string_view program, std::string_view port) const;

  // Any number of samples, in batches of the ladder: the last one may be filled up with copies of its last
  // sample, whose results are dropped. Outputs that are not asked for are not copied. A sample's bits do not
  // depend on the others where the kernels are independent. May be called by several threads; one computes at a
  // time. Throws Error(Exit::usage, "E_PORT") where names, dtypes or sizes are not the ports'.
  void run(std::string_view program, int64_t samples, std::span<const InputTensor> inputs,
           std::span<const OutputTensor> outputs);
  // Largest batch of the program's ladder.
  int64_t largest_batch(std::string_view program) const { return asked(program).ladder.back(); }

  // The program is not asked soon: its weights, where they are read in place, leave this process's memory until then.
  void release(std::string_view program);

  // What its programs do is recorded from now on (null: no more); not while one runs.
  void set_trace(Trace* trace) { session_->executor().set_trace(trace); }

  // runtime's evaluate() of these weights, of a model that has an objective (make_objective). Collective.
  Score evaluate(const SampleSource& images, const std::vector<int64_t>& subset = {},
                 const ClipTokenizer* tokenizer = nullptr);

 private:
  // A program and the batches that it was compiled for.
  struct Asked {
    Program program;
    std::vector<Port> inputs, outputs;
    std::vector<int64_t> ladder;  // ascending
  };
  void agree_on(const SafetensorsFile& weights);
  void compile_programs(int64_t largest_batch);
  void compile_ladder(Asked& asked, int64_t largest_batch);
  const Asked& asked(std::string_view program) const;
  // Samples [at, at + count). inputs, outputs: where those of all samples lie, one a port; null: not asked for.
  void run_batch(const Asked& asked, int64_t batch, int64_t at, int64_t count,
                 std::span<const void* const> inputs, std::span<const void* const> outputs);

  ModelDescription description_;
  std::unique_ptr<Session> own_;
  Session* session_;
  std::map<std::string, Asked, std::less<>> asked_;
  std::mutex mutex_;
  std::vector<std::vector<std::byte>> filled_;  // a port each: the batch that is not full
};

// The batches in which so many samples are computed: each is one of the ladder's; where the last is larger
// than what is left it is filled up.
std::vector<int64_t> batches_of(std::span<const int64_t> ladder, int64_t samples);

}  // namespace lockstep
