// SPDX-License-Identifier: Apache-2.0
// Where each parameter lies in the flat arrays of parameters, gradients and optimizer state.
//
// All of them share one numbering: floats [0, kMetricsFloats) of the gradient array carry the step's metrics
// (the loss sum and correct count ride along in the first bucket's allreduce) and are unused in the others;
// then the parameters follow in reverse order of first use, so that the gradients that are ready first lie
// first and a bucket is a slice. Each starts at a multiple of 16 floats (64 bytes). Those of frozen networks come
// last: the arrays of gradients, optimizer state and moving average end before them.
#pragma once

#include <string>
#include <vector>

#include "runtime/graph/graph.h"

namespace lockstep {

inline constexpr int64_t kMetricsFloats = 16;
inline constexpr int64_t kStopMetric = 2;      // above 0 where a rank wishes to stop
inline constexpr int64_t kDivergedMetric = 4;  // 0; NaN from the first step on whose loss is not finite
inline constexpr const char* kDiverged = "diverged";  // the value there, beside kMetrics

struct FlatEntry {
  std::string name;
  Shape shape;
  Init init;
  int64_t begin = 0;
  int64_t end() const { return begin + shape.elements(); }
};

struct ParameterTable {
  std::vector<std::string> trained = {};  // networks (GraphBuilder::set_network); empty: all
  std::vector<FlatEntry> parameters;      // in flat order: of trained networks, then of frozen ones
  std::vector<FlatEntry> buffers;         // in their own flat array, in order of creation
  std::vector<std::string> order;   // parameter and buffer names in order of creation, as PyTorch lists them
  int64_t length = kMetricsFloats;  // of the parameters' array
  int64_t trained_length = kMetricsFloats;  // of the arrays of what training has beside them
  int64_t buffer_length = 0;

  bool trains(const FlatEntry& parameter) const { return parameter.begin < trained_length; }
  const FlatEntry& parameter(const std::string& name) const;
  const FlatEntry& buffer(const std::string& name) const;
  const FlatEntry* find(const std::string& name) const;  // either; null if absent
  std::string text() const;                              // canonical, for the ranks' agreement
};

ParameterTable make_parameter_table(const Graph& forward, const std::vector<std::string>& trained = {});
// Those of a further graph behind the others; what has a name that is there already is the same tensor. Behind frozen
// networks' none is trained.
void add_parameters(ParameterTable& table, const Graph& forward);

}  // namespace lockstep
