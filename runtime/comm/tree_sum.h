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
// by each of P ranks in 2 log2 P messages. Neighbours meet first, which makes the order of additions the
// tree's.
class TreeSum {
 public:
  TreeSum(MpiWorld& world, MPI_Comm comm);
  // In place; collective. Where the number of ranks is no power of two, MPI's own sum. Allocates when called
  // with more floats than ever before.
  void run(std::span<float> data);

 private:
  void exchange(std::span<float> send, std::span<float> receive, int partner);

  MpiWorld& world_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<float> received_;
};

}  // namespace lockstep
