// SPDX-License-Identifier: Apache-2.0
// Sum over the ranks of an MPI communicator as a binary tree, ((0 + 1) + (2 + 3)) + ...: MPI_Allreduce may
// add in any order, and in another one at another size.
#pragma once

#include <mpi.h>

#include <array>
#include <span>
#include <vector>

#include "runtime/comm/mpi_world.h"

namespace lockstep {

// Reduce-scatter by recursive halving, then allgather by recursive doubling (Thakur, Rabenseifner and Gropp,
// Optimization of Collective Communication Operations in MPICH, 2005, section 4.5): 2 (1 - 1/P) n floats sent
// by each of P ranks in 2 log2 P rounds. Neighbours meet first, which makes the order of additions the
// tree's.
//
// A round's floats travel as messages short enough to be sent without asking, some of them at once. Of one
// long message over TCP, the request and its answer would queue behind the other direction's data, so that
// the two directions took turns.
class TreeSum {
 public:
  TreeSum(MpiWorld& world, MPI_Comm comm);
  // In place; collective. Where the number of ranks is no power of two, MPI's own sum.
  void run(std::span<float> data);

 private:
  static constexpr size_t kMessage = 15 << 10;  // floats: Open MPI asks over TCP from 64 KB on
  static constexpr size_t kMessages = 16;       // under way in each direction

  enum class Received { replaces, is_added };
  void exchange(std::span<float> send, std::span<float> receive, int partner, Received);

  MpiWorld& world_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<float> received_;
};

}  // namespace lockstep
