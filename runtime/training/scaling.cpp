// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/scaling.h"

#include <algorithm>
#include <array>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

constexpr double kBoundByCompute = 0.95;  // efficiency

// What counts; the others cost nothing.
struct Counted {
  bool host = true, latency = true, bandwidth = true, summing = true;
};

int64_t ranks_on_host(const ScalingInput& in, int64_t ranks) {
  return std::min<int64_t>(ranks, in.ranks_per_host);
}

CollectiveCost cost_of(const ScalingInput& in, const StepEvent& e, int64_t ranks) {
  const Cluster cluster{in.link, in.ranks_per_host, in.hosts.at(ranks_on_host(in, ranks)).speed,
                        in.fixed_order};
  switch (e.kind) {
    case StepEvent::Kind::bucket:
      return bucket_allreduce_cost(cluster, ranks, e.bytes);
    case StepEvent::Kind::statistics_sum:
      return statistics_allreduce_cost(cluster, ranks, e.bytes);
    case StepEvent::Kind::statistics_gather:
      return all_gather_cost(cluster, ranks, e.bytes);
    case StepEvent::Kind::compute:
      break;
  }
  return {};
}

double op_seconds(const ScalingInput& in, const StepEvent& e, int64_t ranks) {
  return e.grows ? e.seconds * static_cast<double>(ranks) / static_cast<double>(in.event_ranks) : e.seconds;
}

StepTime time_of(const ScalingInput& in, int64_t ranks, const Counted& counted) {
  const int64_t on_host = ranks_on_host(in, ranks);
  const double slowdown = counted.host ? in.hosts.at(on_host).slowdown : 1;
  std::vector<StreamEvent> events;
  for (const StepEvent& e : in.events) {
    if (e.kind == StepEvent::Kind::compute) {
      events.push_back({StreamEvent::Kind::compute, op_seconds(in, e, ranks) * slowdown, 0, e.waits});
      continue;
    }
    const CollectiveTime t = cost_of(in, e, ranks).time;
    const auto kind =
        e.kind == StepEvent::Kind::bucket ? StreamEvent::Kind::bucket : StreamEvent::Kind::blocking;
    events.push_back({kind, (counted.latency ? t.latency : 0) + (counted.bandwidth ? t.bandwidth : 0),
                      counted.summing ? t.summing : 0});
  }
  // For the communication thread of every rank.
  const bool spare_core = in.cores_per_host >= on_host * (in.threads_per_rank + 1);
  return simulate_step(events, spare_core);
}

}  // namespace

std::vector<StepEvent> step_events(const Plan& plan, std::span<const double> node_seconds) {
  const Graph& g = plan.graph;
  LOCKSTEP_ASSERT(node_seconds.size() == g.nodes().size());
  const auto producer = g.producers();
  const auto gathered = [&](ValueId v) {
    const NodeId p = producer[static_cast<size_t>(v)];
    return p >= 0 && g.nodes()[static_cast<size_t>(p)].kind == NodeKind::all_gather;
  };
  std::vector<StepEvent> events;
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& n = g.nodes()[i];
    StepEvent e;
    switch (n.kind) {
      case NodeKind::view:
        continue;
      case NodeKind::compute:
        e.seconds = node_seconds[i];
        e.waits = reads_summed_gradients(g, n);
        e.grows = std::any_of(n.in.begin(), n.in.end(), gathered);
        break;
      case NodeKind::allreduce:
        e.kind = n.params.empty() ? StepEvent::Kind::statistics_sum : StepEvent::Kind::bucket;
        e.bytes = collective_bytes(g, n);
        break;
      case NodeKind::all_gather:
        e.kind = StepEvent::Kind::statistics_gather;
        e.bytes = collective_bytes(g, n);
        break;
    }
    events.push_back(e);
  }
  return events;
}

StepTime simulate_step(std::span<const StreamEvent> events, bool spare_core) {
  StepTime t;
  double now = 0, stream = 0;  // when the computing thread, and the communication stream, are free
  for (const StreamEvent& e : events) {
    switch (e.kind) {
      case StreamEvent::Kind::compute:
        if (e.waits) now = std::max(now, stream);
        now += e.seconds, t.compute += e.seconds;
        break;
      case StreamEvent::Kind::bucket:
        t.communication += e.seconds + e.summing;
        if (!spare_core) now += e.summing;
        stream = std::max(now, stream) + e.seconds + (spare_core ? e.summing : 0);
        break;
      case StreamEvent::Kind::blocking:
        t.communication += e.seconds + e.summing;
        now += e.seconds + e.summing;
        break;
    }
  }
  t.step = std::max(now, stream);
  return t;
}

ScalingPoint predict_step(const ScalingInput& in, int64_t ranks) {
  ScalingPoint p;
  p.ranks = ranks;
  p.time = time_of(in, ranks, {});
  const auto samples = static_cast<double>(in.samples_per_rank);
  p.samples_per_second = samples * static_cast<double>(ranks) / p.time.step;
  double alone = 0;
  for (const StepEvent& e : in.events)
    if (e.kind == StepEvent::Kind::compute) alone += op_seconds(in, e, 1);
  p.efficiency = alone / p.time.step;
  for (const StepEvent& e : in.events)
    if (e.kind == StepEvent::Kind::bucket) ++p.algorithms[cost_of(in, e, ranks).algorithm];

  p.binds = "compute";
  if (p.efficiency >= kBoundByCompute) return p;
  const std::array<std::pair<const char*, Counted>, 4> causes = {{
      {"host", {.host = false}},
      {"latency", {.latency = false}},
      {"bandwidth", {.bandwidth = false}},
      {"summing", {.summing = false}},
  }};
  double shortest = p.time.step;
  for (const auto& [name, counted] : causes)
    if (const double step = time_of(in, ranks, counted).step; step < shortest)
      shortest = step, p.binds = name;
  return p;
}

}  // namespace lockstep
