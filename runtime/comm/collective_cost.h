// SPDX-License-Identifier: Apache-2.0
// What collectives take, predicted by the α–β model (Hockney, 1994): a message of n bytes takes α + n β, and
// adding n bytes to one's own n γ. Links work both ways at once.
//
// Allreduce of n bytes over p ranks, the cheapest of
//   ring                 2 (p-1) α + 2 (p-1)/p n β + (p-1)/p n γ   (Patarasuk, Yuan, 2009)
//   recursive doubling   lg p (α + n β + n γ)                      (Thakur, Rabenseifner, Gropp, 2005)
//   halving-doubling     2 lg p α + 2 (p-1)/p n β + (p-1)/p n γ    (Rabenseifner's; the same paper)
// the last two being the trees: a binomial tree from every rank, down which messages grow. Where p is no
// power of two the ranks beyond the last one hand theirs to a neighbour before and get the result after, as
// MPICH and Open MPI have it: recursive doubling 2 (α + n β) + n γ more, halving-doubling 3 α + 2 n β + n/2
// γ. MPI is taken to choose the cheapest; gradients of 2^k hosts go by halving-doubling always (tree_sum.h).
// Ranks of one host (host_group.h) sum through its memory: two meetings and n bytes a rank. On several hosts
// the allreduce goes on between one rank of each, and two more meetings and n bytes bring the result to the
// others: hierarchical. All-gather, every rank getting m bytes of each: ⌈lg p⌉ α + (p-1) m β (Bruck and
// others, 1997).
#pragma once

#include <cstdint>
#include <string>

namespace lockstep {

// Between two hosts.
struct LinkSpeed {
  double latency_seconds = 0;   // α: of a message, one way, software included
  double seconds_per_byte = 0;  // β
};

// Sums within a host. What measure_host_speed() finds is of one number of ranks.
struct HostSpeed {
  double meeting_seconds = 0;              // until all ranks of the host have come to a point
  double shared_sum_seconds_per_byte = 0;  // n bytes of every rank summed, each having the result
  double sum_seconds_per_byte = 0;         // γ: of one rank adding what it received
};

struct Cluster {
  LinkSpeed link;
  int ranks_per_host = 1;
  HostSpeed host;
  bool fixed_order = false;  // of sums: CommOptions
};

// By what would make it faster.
struct CollectiveTime {
  double latency = 0;    // α, and meetings
  double bandwidth = 0;  // β
  double summing = 0;    // γ and memory: needs a core
  double total() const { return latency + bandwidth + summing; }
};

struct CollectiveCost {
  std::string
      algorithm;  // none, ring, recursive doubling, halving-doubling, shared memory, shared memory + ...
  CollectiveTime time;
};

// Over links alone, between p ranks that each have theirs to themselves.
CollectiveCost allreduce_over_links(int64_t p, double bytes, const LinkSpeed& link,
                                    double sum_seconds_per_byte);

// A bucket of gradients: as MpiCommunicator::start_allreduce() sums it. `ranks` fill one host after another.
CollectiveCost bucket_allreduce_cost(const Cluster& cluster, int64_t ranks, int64_t bytes);
// Batch norm's small sums and gathers, which go over every rank's own messages as soon as there are several
// hosts: the ranks of a host share its link. `bytes`: of one rank.
CollectiveCost statistics_allreduce_cost(const Cluster& cluster, int64_t ranks, int64_t bytes);
CollectiveCost all_gather_cost(const Cluster& cluster, int64_t ranks, int64_t bytes);

}  // namespace lockstep
