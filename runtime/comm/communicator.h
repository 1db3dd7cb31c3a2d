// SPDX-License-Identifier: Apache-2.0
// How ranks meet. Implementations: self (one rank, nothing to do) and mpi (Open MPI).
//
// Every collective is called by all ranks of a communicator in the same order. Blocking calls may be made
// by one thread at a time per communicator; a communicator of its own (duplicate) may be used at the
// same time from another thread. Results of allreduce are bit-equal on all ranks.
// A peer that is gone or silent past the deadline ends this process with exit code 75 after writing what is
// known (CommOptions::on_peer_lost); no call ever returns half done.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/device/memory.h"

namespace lockstep {

class Trace;

enum class Reduce : uint8_t { sum, min, max };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void allreduce(std::span<float> data, Reduce op) = 0;
  virtual void allreduce(std::span<double> data, Reduce op) = 0;
  virtual void allreduce(std::span<int64_t> data, Reduce op) = 0;
  // recv has size() * send.size() bytes, in rank order.
  virtual void all_gather(std::span<const std::byte> send, std::span<std::byte> recv) = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  virtual void barrier() = 0;
  virtual std::unique_ptr<Communicator> duplicate(const std::string& name) = 0;

  // Zeroed memory that start_allreduce() is fastest on: ranks of one host sum it where it lies. Collective,
  // of the same size on all ranks. It may outlive the communicator.
  virtual AlignedBuffer allocate(int64_t bytes) = 0;

  // Starts allreduce(sum) on the communication thread; tickets complete in the order started. `data` must
  // not be touched until wait(ticket) has returned. Allocates nothing after the first call of this size. With
  // CommOptions::fixed_order and 2^k ranks the sum is the binary tree over them, ((0 + 1) + (2 + 3)) + ...,
  // wherever they run; one rank alone and make_mirror_communicator() have no order to keep.
  // `name` is for messages, and outlives the ticket.
  using Ticket = int64_t;
  virtual Ticket start_allreduce(std::span<float> data, const char* name = "an allreduce") = 0;
  virtual void wait(Ticket ticket) = 0;
  // Seconds that wait() has spent blocked since the last call of this function: the exposed part.
  virtual double take_exposed_seconds() = 0;

  // Buckets' sums are timed from now on while it records (null: no more). None may be under way.
  virtual void set_trace(Trace* trace) = 0;

  // Tells the other ranks that this one leaves because of `error`: they leave too, with its exit code, and need
  // not find out at their deadline. Its last call.
  virtual void leave(const Error& error) = 0;

  // Text of any length from every rank, in rank order; from root to all.
  std::vector<std::string> gather_text(const std::string& mine);
  std::string broadcast_text(const std::string& text, int root);
};

// Why this process has to leave: another rank is lost, or has failed.
struct LostPeer {
  Error error;        // places: rank and host of who is to blame, where known, and op: what is waited for
  bool told = false;  // another rank has told the user
};

struct CommOptions {
  double deadline_seconds = 300;  // a collective that takes longer: a peer is lost
  // Unless those that are waited for answer, and say that they are at work of their own (OwnWork): then this long.
  double own_work_seconds = 1800;
  // Gradients of 2^k ranks are summed in an order that doesn't depend on where the ranks run. Ranks of a host
  // that are no node of the tree over all then don't share memory.
  bool fixed_order = false;
  // Called once, from any thread, before the process leaves with the error's code. None: stderr is told.
  std::function<void(const LostPeer&)> on_peer_lost;
};

std::unique_ptr<Communicator> make_self_communicator();
// Rank 0 of `size` ranks that hold what it holds, in one process: to run a plan of many ranks on one.
std::unique_ptr<Communicator> make_mirror_communicator(int size);
// MPI_Init_thread must not have been called; finalised by the destructor of the last communicator.
std::unique_ptr<Communicator> make_mpi_communicator(CommOptions options);
// Whether this process was started by mpirun, srun or another launcher of ranks, and what it says.
struct LauncherEnvironment {
  bool present = false;
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
};
LauncherEnvironment launcher_environment();

}  // namespace lockstep
