// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/collective_cost.h"

#include <algorithm>
#include <array>
#include <bit>

namespace lockstep {
namespace {

struct Hosts {
  int64_t count = 1, ranks = 1;  // ranks: of a full one
};
Hosts hosts_of(const Cluster& c, int64_t ranks) {
  const int64_t on_one = std::min<int64_t>(ranks, std::max(1, c.ranks_per_host));
  return {(ranks + on_one - 1) / on_one, on_one};
}

CollectiveTime through_memory(const HostSpeed& host, int64_t meetings, double bytes) {
  return {static_cast<double>(meetings) * host.meeting_seconds, 0, bytes * host.shared_sum_seconds_per_byte};
}

LinkSpeed shared(LinkSpeed link, int64_t ranks) {
  link.seconds_per_byte *= static_cast<double>(ranks);
  return link;
}

bool power_of_two(int64_t n) { return std::has_single_bit(static_cast<uint64_t>(n)); }

// Of 2^k ranks.
CollectiveCost halving_doubling(int64_t p, double n, const LinkSpeed& link, double gamma) {
  const double rounds = 2 * (std::bit_width(static_cast<uint64_t>(p)) - 1);
  const double share = static_cast<double>(p - 1) / static_cast<double>(p);
  return {"halving-doubling",
          {rounds * link.latency_seconds, 2 * share * n * link.seconds_per_byte, share * n * gamma}};
}

}  // namespace

CollectiveCost allreduce_over_links(int64_t p, double n, const LinkSpeed& link, double gamma) {
  if (p <= 1) return {"none", {}};
  const double alpha = link.latency_seconds, beta = link.seconds_per_byte;
  const auto messages = static_cast<double>(2 * (p - 1));
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(p)));
  const double lg = std::bit_width(static_cast<uint64_t>(power)) - 1;
  const auto share = [](int64_t ranks) {
    return static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  };
  CollectiveCost ring{"ring", {messages * alpha, 2 * share(p) * n * beta, share(p) * n * gamma}};
  CollectiveCost doubling{"recursive doubling", {lg * alpha, lg * n * beta, lg * n * gamma}};
  CollectiveCost halving = halving_doubling(power, n, link, gamma);
  if (power != p) {
    doubling.time.latency += 2 * alpha, halving.time.latency += 3 * alpha;
    doubling.time.bandwidth += 2 * n * beta, halving.time.bandwidth += 2 * n * beta;
    doubling.time.summing += n * gamma, halving.time.summing += n / 2 * gamma;
  }
  const std::array candidates = {doubling, halving, ring};
  return *std::min_element(candidates.begin(), candidates.end(),
                           [](const auto& a, const auto& b) { return a.time.total() < b.time.total(); });
}

CollectiveCost bucket_allreduce_cost(const Cluster& cluster, int64_t ranks, int64_t bytes) {
  const Hosts hosts = hosts_of(cluster, ranks);
  const auto n = static_cast<double>(bytes);
  const double gamma = cluster.host.sum_seconds_per_byte;
  // Hosts that are no nodes of the tree don't sum by themselves (host_group.h).
  if (cluster.fixed_order && hosts.count > 1 && power_of_two(ranks) && !power_of_two(hosts.ranks))
    return halving_doubling(ranks, n, shared(cluster.link, hosts.ranks), gamma);
  // As tree_sum.h sums.
  CollectiveCost between = hosts.count > 1 && power_of_two(hosts.count)
                               ? halving_doubling(hosts.count, n, cluster.link, gamma)
                               : allreduce_over_links(hosts.count, n, cluster.link, gamma);
  if (hosts.ranks == 1) return between;
  if (hosts.count == 1) return {"shared memory", through_memory(cluster.host, 2, n)};
  const CollectiveTime within = through_memory(cluster.host, 4, 2 * n);
  return {
      "shared memory + " + between.algorithm,
      {between.time.latency + within.latency, between.time.bandwidth, between.time.summing + within.summing}};
}

CollectiveCost statistics_allreduce_cost(const Cluster& cluster, int64_t ranks, int64_t bytes) {
  const Hosts hosts = hosts_of(cluster, ranks);
  const auto n = static_cast<double>(bytes);
  if (hosts.count == 1 && ranks > 1) return {"shared memory", through_memory(cluster.host, 1, n)};
  return allreduce_over_links(ranks, n, shared(cluster.link, hosts.ranks), cluster.host.sum_seconds_per_byte);
}

CollectiveCost all_gather_cost(const Cluster& cluster, int64_t ranks, int64_t bytes) {
  if (ranks <= 1) return {"none", {}};
  const Hosts hosts = hosts_of(cluster, ranks);
  const auto received = static_cast<double>(bytes * (ranks - 1));
  if (hosts.count == 1) return {"shared memory", through_memory(cluster.host, 1, received)};
  const LinkSpeed link = shared(cluster.link, hosts.ranks);
  const double rounds = std::bit_width(static_cast<uint64_t>(ranks - 1));  // ⌈lg p⌉
  return {"recursive doubling", {rounds * link.latency_seconds, received * link.seconds_per_byte, 0}};
}

}  // namespace lockstep
