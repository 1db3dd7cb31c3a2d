// SPDX-License-Identifier: Apache-2.0
// A training step on any number of ranks, predicted from what its ops take on one and what its collectives
// cost (collective_cost.h). Each rank computes the same number of samples whatever the rank count: weak
// scaling.
//
// Two streams, as the executor has them: ops one after the other on the computing thread; buckets on the
// communication thread in plan order, each starting when it has been handed over (its last gradient is done)
// and the one before it has ended. The optimizer, or gradient clipping, waits for the last. Batch norm's sums
// are waited for where they stand. Summing needs a core: where a host has none to spare, the computing thread
// stands still for it.
// Not in the model: ranks of different hosts that are not equally fast, collectives that share a link at the
// same time, loading data, metrics, checkpoints.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/comm/collective_cost.h"
#include "runtime/graph/plan.h"

namespace lockstep {

// A node of a plan as the model sees it.
struct StepEvent {
  enum class Kind : uint8_t { compute, bucket, statistics_sum, statistics_gather };
  Kind kind = Kind::compute;
  double seconds = 0;  // compute: measured
  bool waits = false;  // compute: reads gradients that every bucket has been added to
  bool grows = false;  // compute: reads a part of every rank, so takes time in proportion to their count
  int64_t bytes = 0;   // collectives: of one rank
};
// Without views. node_seconds: per node, of collectives not read.
std::vector<StepEvent> step_events(const Plan& plan, std::span<const double> node_seconds);

// What runs when, with every duration known.
struct StreamEvent {
  enum class Kind : uint8_t { compute, bucket, blocking } kind = Kind::compute;
  double seconds = 0;  // compute, or on the communication stream
  double summing = 0;  // collectives: the part that needs a core
  bool waits = false;
};
struct StepTime {
  double step = 0, compute = 0, communication = 0;  // communication: of all collectives, hidden or not
  double exposed() const { return step - compute; }
};
StepTime simulate_step(std::span<const StreamEvent> events, bool spare_core);

// So many ranks on one host.
struct HostLoad {
  double slowdown = 1;  // how many times longer ops take than on one rank alone
  HostSpeed speed;
};

struct ScalingInput {
  std::vector<StepEvent> events;
  int event_ranks = 1;           // rank count that `grows` events were measured with
  int64_t samples_per_rank = 0;  // per step
  LinkSpeed link;
  int ranks_per_host = 1;
  bool fixed_order = false;           // of gradients' sums: CommOptions
  std::map<int64_t, HostLoad> hosts;  // by their ranks: of every rank count that is asked for
  int cores_per_host = 1, threads_per_rank = 1;
};

struct ScalingPoint {
  int64_t ranks = 1;
  StepTime time;
  double samples_per_second = 0;
  double efficiency = 0;  // samples a second and rank, of those of one rank alone
  // compute, from an efficiency of 95 % on; else what would shorten the step most if it cost nothing: host
  // (its ranks slow each other down), latency, bandwidth or summing
  std::string binds;
  std::map<std::string, int64_t> algorithms;  // buckets by how they are summed
};
ScalingPoint predict_step(const ScalingInput& input, int64_t ranks);

}  // namespace lockstep
