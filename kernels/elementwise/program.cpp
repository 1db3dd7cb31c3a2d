// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/program.h"

#include <algorithm>

namespace lockstep::elementwise {
namespace {

class Compiler {
 public:
  explicit Compiler(const ElementwiseParams& p) : inputs_(p.inputs), code_(p.code), outputs_(p.outputs) {
    // An output that is an input is a copy like any other instruction's result.
    for (int& o : outputs_)
      if (o < inputs_) {
        code_.push_back({.op = Elt::copy, .a = o, .b = o});
        o = inputs_ + static_cast<int>(code_.size()) - 1;
      }
    last_use_.resize(static_cast<size_t>(inputs_) + code_.size(), -1);
    for (int j = 0; j < count(); ++j)
      for (int r : operands(j)) {
        last_use_[static_cast<size_t>(r)] = j;
        if (r < inputs_) last_input_use_ = j;
      }
  }

  Program compile() {
    for (int i = 0; i < inputs_; ++i) places_.push_back({Place::Kind::input, i});
    for (int j = 0; j < count(); ++j) {
      const EltInstruction& in = code_[static_cast<size_t>(j)];
      const Place a = place(in.a), b = place(operands(j).back());
      for (int r : operands(j))
        if (last_use_[static_cast<size_t>(r)] == j) release(r);
      places_.push_back(destination(j));
      program_.steps.push_back({in.op, a, b, places_.back(), in.imm});
      const int result = inputs_ + j;
      if (last_use_[static_cast<size_t>(result)] < 0) release(result);
    }
    for (size_t k = 0; k < outputs_.size(); ++k) {
      const Place from = place(outputs_[k]), to{Place::Kind::output, static_cast<int>(k)};
      if (from != to) program_.steps.push_back({Elt::copy, from, from, to, 0});
    }
    return std::move(program_);
  }

 private:
  int count() const { return static_cast<int>(code_.size()); }
  Place place(int r) const { return places_[static_cast<size_t>(r)]; }

  std::vector<int> operands(int j) const {
    const EltInstruction& in = code_[static_cast<size_t>(j)];
    if (operand_count(in.op) == 1 || in.a == in.b) return {in.a};
    return {in.a, in.b};
  }

  bool is_output(int r) const { return std::find(outputs_.begin(), outputs_.end(), r) != outputs_.end(); }

  void release(int r) {
    const Place p = place(r);
    if (p.kind == Place::Kind::slot && !is_output(r)) free_.push_back(p.index);
  }

  // Straight into an output where that overwrites no input that is still to be read.
  Place destination(int j) {
    const int result = inputs_ + j;
    if (j >= last_input_use_)
      for (size_t k = 0; k < outputs_.size(); ++k)
        if (outputs_[k] == result) return {Place::Kind::output, static_cast<int>(k)};
    if (free_.empty()) return {Place::Kind::slot, program_.slots++};
    const int slot = free_.back();
    free_.pop_back();
    return {Place::Kind::slot, slot};
  }

  int inputs_;
  std::vector<EltInstruction> code_;
  std::vector<int> outputs_;
  std::vector<int> last_use_;  // of each register: the last instruction that reads it
  int last_input_use_ = -1;
  std::vector<Place> places_;  // of each register so far
  std::vector<int> free_;
  Program program_;
};

}  // namespace

Program compile(const ElementwiseParams& p) { return Compiler(p).compile(); }

}  // namespace lockstep::elementwise
