// SPDX-License-Identifier: Apache-2.0
// The SIMT executor: runs a kernel written for a GPU on the host.
//
// A block runs on one operating-system thread, its threads as fibers that switch only where they wait for
// each other: at barriers and at warp operations. A thread gets a stack of its own only once another one
// waits, so a kernel without barriers is a plain loop. Blocks are spread over the operating-system threads.
// Kernels reach all this through device_code.h, never directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace lockstep::simt_executor {

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
      : x(x_), y(y_), z(z_) {}  // NOLINT: as CUDA's
};

// What a kernel may ask of every GPU that we support. Shared memory is that of compute capability 8.0: what
// asks for no more runs on 9.0 and 10.0 too, which have 227 KB.
inline constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535, kMaxBlockZ = 64, kWarp = 32,
                          kNamedBarriers = 16;
inline constexpr unsigned kMaxGridX = 0x7FFFFFFF;
inline constexpr size_t kMaxDynamicShared = 163 << 10, kMaxStaticShared = 48 << 10;
// Around dynamic shared memory, nobody else's: what strays there meant to be inside.
inline constexpr size_t kSharedMargin = 4096;

enum class Problem : uint8_t {
  launch_refused,  // grid, block or shared memory beyond what a GPU takes
  global_out_of_bounds,
  shared_out_of_bounds,
  shared_unwritten,  // read of shared memory that nobody wrote
  shared_race,       // two threads, one shared byte, no barrier between, one of them writes
  global_race,       // two blocks of a launch, one global byte, one of them writes
  barrier,           // a barrier that not all its threads reach, some having returned, or different ones
  warp,              // a shuffle, vote, ... that not all named lanes reach, or with other masks
  misaligned,
  async_copy,  // memory touched while a cp_async into it is under way
};
const char* name(Problem);

// Where the running thread is: threadIdx and its like. Set anew at every switch.
struct Position {
  dim3 thread, block, block_dim, grid_dim;
  unsigned linear = 0;          // threadIdx as one number
  std::byte* shared = nullptr;  // dynamic shared memory
  size_t shared_bytes = 0;
  const std::byte *stack_begin = nullptr, *stack_end = nullptr;  // the running fiber's
  bool watched = false;  // kernel code runs, whose accesses are judged: not the executor's own
};
extern constinit thread_local Position position;

struct Launch {
  void (*call)(const void* context);  // the kernel, as one thread runs it
  const void* context;
  const void* kernel;  // its address: names it in findings
  dim3 grid, block;
  size_t shared_bytes = 0;
  bool watched = false;
};
// Returns when all blocks are done. A problem that the watch (watch.h) doesn't take is thrown as an Error.
void run(const Launch&);

// Operating-system threads that a launch may use; 0: one for each core.
void set_threads(int);

// What the watch wants to know. All calls come from the thread that runs the block.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(const Launch&) = 0;
  virtual void launch_ends() = 0;
  virtual void block_begins() = 0;
  virtual void block_synced() = 0;
  virtual void warp_synced(unsigned warp, uint32_t lanes) = 0;
  virtual void threads_synced(std::span<const uint16_t> threads) = 0;
  // `place`: the instruction after the call; `other`: of another thread concerned, or null.
  virtual void problem(Problem, std::string what, const void* place, const void* other) = 0;
  // An access that the executor makes for a thread.
  virtual void access(const void* address, size_t bytes, bool write, const void* place) = 0;
  virtual void atomic(const void* address, size_t bytes, const void* place) = 0;
  virtual void fence() = 0;
  virtual void async_copy(void* shared, const void* global, int valid, const void* place) = 0;
  virtual void async_commit() = 0;
  virtual void async_wait(int groups_left, const void* place) = 0;
  // Memory that a kernel keeps (DeviceTable); all other is the caller's to register.
  virtual void allocated(const void* data, size_t bytes) = 0;
  virtual void freed(const void* data) = 0;
};
void set_observer(Observer*);  // the watch's, at start
Observer* observer();          // while a watched launch runs; else null
Observer* any_observer();      // the one set, or null

// What device_code.h's functions are made of; they concern the running thread. Findings name their caller.
void block_barrier();
int block_barrier_count(bool predicate);  // how many threads said yes
void named_barrier(unsigned id, unsigned threads);
void warp_barrier(uint32_t mask);
// The value of lane `source`, which must be in the mask.
uint64_t shuffle(uint32_t mask, uint64_t value, unsigned source);
uint32_t ballot(uint32_t mask, bool predicate);
void mma_bf16_16x8x16(float* d, const uint32_t* a, const uint32_t* b);
void load_matrix(uint32_t* to, const void* row, int matrices, bool transposed);
void async_copy16(void* shared, const void* global, int valid_bytes);
void async_commit();
void async_wait(int groups_left);
void fence();
// Called by an integer atomic before it acts; the value is then changed by the host's own atomics.
void atomic_access(const void* address, size_t bytes);
unsigned lane();  // threadIdx within its warp
Position here();  // a copy, for watched code, which must not read the executor's own memory

}  // namespace lockstep::simt_executor
