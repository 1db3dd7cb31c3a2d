// SPDX-License-Identifier: Apache-2.0
// One block at a time on the calling operating-system thread. See executor.h.
#pragma once

#include <array>
#include <boost/context/fiber.hpp>
#include <memory>
#include <vector>

#include "kernels/gpu/simt/executor.h"

namespace lockstep::simt_executor {

enum class WarpOp : uint8_t { barrier, shuffle, ballot, mma, load_matrix };
const char* name(WarpOp);

// Operands of a warp operation, one per lane that takes part, on the lanes' own stacks; null for others.
using Operands = std::array<void*, kWarp>;

class BlockRunner {
 public:
  static BlockRunner& of_this_thread();
  static BlockRunner& active();  // what runs the calling kernel
  BlockRunner();
  ~BlockRunner();

  void begin(const Launch&);
  void run(int64_t block);
  std::string take_problem() { return std::exchange(problem_, {}); }

  // From kernel code, for the running thread.
  void block_barrier(bool predicate, const void* place);
  int barrier_count() const { return barrier_result_; }
  void named_barrier(unsigned id, unsigned threads, const void* place);
  // Waits for all lanes of the mask; the last one to come performs `act` for all of them.
  void warp_operation(WarpOp, uint32_t mask, void* operand, void (*act)(const Operands&, const void* place),
                      const void* place);
  void report(Problem, const std::string& what, const void* place, const void* other = nullptr);

 private:
  struct Worker {  // a fiber and its stack
    boost::context::fiber fiber;
    std::byte* stack = nullptr;  // lowest address
    size_t stack_bytes = 0;
    void* fake_stack = nullptr;  // the address sanitizer's
  };
  struct Thread {
    dim3 index;
    Worker* worker = nullptr;  // where it waits
    const void* place = nullptr;
  };
  struct Lane {
    uint32_t mask = 0;
    WarpOp op = WarpOp::barrier;
    const void* place = nullptr;
    void* operand = nullptr;
    void (*act)(const Operands&, const void*) = nullptr;
  };
  struct Warp {
    uint32_t there = 0;  // lanes that the block has
    uint32_t gone = 0;   // lanes that have returned or never were
    uint32_t waiting = 0;
    std::array<Lane, kWarp> lanes;
  };
  struct NamedBarrier {
    unsigned threads = 0;
    std::vector<uint16_t> waiting;
  };

  Worker* new_worker();
  void work();  // what a worker's fiber runs
  void arrive(boost::context::fiber&& left);
  void switch_to(Worker&);
  Worker* next_worker();
  void wait();  // of the running thread, until it is made ready
  void set_running(unsigned thread);
  void make_ready(unsigned thread);
  void thread_ends();
  bool all_here(const Warp&, uint32_t mask, WarpOp) const;
  void complete(unsigned warp, uint32_t lanes, unsigned self);
  void release_block_barrier(unsigned self);
  unsigned returned_thread() const;
  void release_named_barrier(NamedBarrier&, unsigned self);
  void resolve_deadlock();

  const Launch* launch_ = nullptr;
  unsigned count_ = 0;        // threads of the block
  unsigned next_thread_ = 0;  // the first that has not begun
  unsigned alive_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::array<NamedBarrier, kNamedBarriers> named_;
  std::vector<uint16_t> at_barrier_;
  int barrier_votes_ = 0, barrier_result_ = 0;

  std::array<uint16_t, kMaxThreads> ready_;  // a ring
  unsigned ready_first_ = 0, ready_count_ = 0;

  Worker main_;  // the stack that run() was called on
  Worker *running_ = &main_, *left_ = nullptr;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;
  bool stopping_ = false;

  struct FreeMemory {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, FreeMemory> shared_;  // with a margin on both sides
  std::string problem_;
};

}  // namespace lockstep::simt_executor
