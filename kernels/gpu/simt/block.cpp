// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/simt/block.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <boost/context/preallocated.hpp>
#include <boost/context/stack_context.hpp>
#include <cstdlib>

#include "kernels/core/error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace lockstep::simt_executor {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 512 << 10;  // its frames are large
#else
constexpr size_t kStackBytes = 128 << 10;  // pages never touched cost nothing
#endif
constexpr unsigned kNobody = ~0u;
constinit thread_local BlockRunner* active_runner = nullptr;

// Stacks belong to the runner and outlive the fibers on them.
struct KeepStack {
  boost::context::stack_context allocate() { return {}; }
  void deallocate(boost::context::stack_context&) {}
};

}  // namespace

const char* name(WarpOp op) {
  switch (op) {
    case WarpOp::barrier:
      return "__syncwarp";
    case WarpOp::shuffle:
      return "shuffle";
    case WarpOp::ballot:
      return "vote";
    case WarpOp::mma:
      return "mma";
    case WarpOp::load_matrix:
      return "ldmatrix";
  }
  return "?";
}

void BlockRunner::FreeMemory::operator()(std::byte* p) const { std::free(p); }

BlockRunner& BlockRunner::of_this_thread() {
  static thread_local BlockRunner runner;
  return runner;
}

BlockRunner& BlockRunner::active() { return *active_runner; }

BlockRunner::BlockRunner()
    : shared_(static_cast<std::byte*>(std::aligned_alloc(1024, kMaxDynamicShared + 2 * kSharedMargin))) {}

BlockRunner::~BlockRunner() {
  stopping_ = true;
  for (auto& w : workers_) {
    switch_to(*w);
    munmap(w->stack, w->stack_bytes);
  }
}

// --- fibers ---

BlockRunner::Worker* BlockRunner::new_worker() {
  auto w = std::make_unique<Worker>();
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  w->stack_bytes = kStackBytes + page;
  void* memory = mmap(nullptr, w->stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  LOCKSTEP_ASSERT(memory != MAP_FAILED, "no memory for stack {} of a block's threads", workers_.size());
  mprotect(memory, page, PROT_NONE);  // an overrun stops here
  w->stack = static_cast<std::byte*>(memory);
  // Stacks start at different places of their pages, or the threads' frames would meet in few cache sets.
  const size_t shift = workers_.size() % 128 * 128;
  boost::context::stack_context stack;
  stack.sp = w->stack + w->stack_bytes - shift;
  stack.size = w->stack_bytes - page - shift;
  w->fiber =
      boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                            KeepStack{}, [this](boost::context::fiber&& left) {
                              arrive(std::move(left));
                              work();
#ifdef __SANITIZE_ADDRESS__
                              __sanitizer_start_switch_fiber(nullptr, main_.stack, main_.stack_bytes);
#endif
                              left_ = running_;
                              running_ = &main_;
                              return std::move(main_.fiber);
                            });
  workers_.push_back(std::move(w));
  return workers_.back().get();
}

// After a switch, on the stack switched to: the one left can be continued by its fiber.
void BlockRunner::arrive(boost::context::fiber&& left) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(running_->fake_stack, &bottom, &bytes);
  if (left_ == &main_) {
    main_.stack = static_cast<std::byte*>(const_cast<void*>(bottom));
    main_.stack_bytes = bytes;
  }
#endif
  left_->fiber = std::move(left);
}

void BlockRunner::switch_to(Worker& to) {
  left_ = running_;
  running_ = &to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&left_->fake_stack, to.stack, to.stack_bytes);
#endif
  arrive(std::move(to.fiber).resume());
}

void BlockRunner::work() {
  while (!stopping_) {
    if (ready_count_ == 0 && next_thread_ < count_) {
      set_running(next_thread_++);
      position.watched = observer() != nullptr;
      launch_->call(launch_->context);
      position.watched = false;
      thread_ends();
      continue;
    }
    idle_.push_back(running_);
    if (Worker* next = next_worker(); next != running_) switch_to(*next);
  }
}

// Threads that can go on come before those that have not begun: fewer stacks in use.
BlockRunner::Worker* BlockRunner::next_worker() {
  for (;; resolve_deadlock()) {
    if (ready_count_ > 0) {
      const unsigned t = ready_[ready_first_];
      ready_first_ = (ready_first_ + 1) % kMaxThreads;
      --ready_count_;
      return threads_[t].worker;
    }
    if (next_thread_ < count_) {
      if (idle_.empty()) return new_worker();
      Worker* w = idle_.back();
      idle_.pop_back();
      return w;
    }
    if (alive_ == 0) return &main_;
  }
}

void BlockRunner::wait() {
  const unsigned t = position.linear;
  threads_[t].worker = running_;
  if (Worker* next = next_worker(); next != running_) switch_to(*next);
  set_running(t);
}

void BlockRunner::set_running(unsigned t) {
  position.thread = threads_[t].index;
  position.linear = t;
  position.stack_begin = running_->stack;
  position.stack_end = running_->stack + running_->stack_bytes;
}

void BlockRunner::make_ready(unsigned t) {
  ready_[(ready_first_ + ready_count_++) % kMaxThreads] = static_cast<uint16_t>(t);
}

// --- blocks ---

void BlockRunner::begin(const Launch& l) {
  launch_ = &l;
  active_runner = this;
  count_ = l.block.x * l.block.y * l.block.z;
  threads_.resize(std::max<size_t>(threads_.size(), count_));
  for (unsigned t = 0; t < count_; ++t)
    threads_[t].index = dim3(t % l.block.x, t / l.block.x % l.block.y, t / (l.block.x * l.block.y));
  warps_.resize((count_ + kWarp - 1) / kWarp);
  position.block_dim = l.block;
  position.grid_dim = l.grid;
  position.shared = shared_.get() + kSharedMargin;
  position.shared_bytes = l.shared_bytes;
}

void BlockRunner::run(int64_t block) {
  const auto b = static_cast<uint64_t>(block);
  const dim3 grid = launch_->grid;
  position.block = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y));
  next_thread_ = 0;
  alive_ = count_;
  for (unsigned w = 0; w < warps_.size(); ++w) {
    const unsigned lanes = std::min(kWarp, count_ - w * kWarp);
    warps_[w].gone = lanes == kWarp ? 0 : ~0u << lanes;
    warps_[w].there = ~warps_[w].gone;
    warps_[w].waiting = 0;
  }
  if (Observer* o = observer()) o->block_begins();
  switch_to(*next_worker());
}

void BlockRunner::thread_ends() {
  const unsigned t = position.linear, w = t / kWarp;
  Warp& warp = warps_[w];
  --alive_;
  warp.gone |= 1u << t % kWarp;
  if (!at_barrier_.empty() && at_barrier_.size() == alive_) release_block_barrier(kNobody);
  // Lanes may have waited for this one alone.
  for (uint32_t left = warp.waiting; left;) {
    const Lane& lane = warp.lanes[static_cast<unsigned>(std::countr_zero(left))];
    left &= ~lane.mask & (left - 1);
    if (all_here(warp, lane.mask, lane.op)) complete(w, lane.mask & ~warp.gone, kNobody);
  }
}

// --- barriers ---

void BlockRunner::block_barrier(bool predicate, const void* place) {
  const unsigned t = position.linear;
  threads_[t].place = place;
  barrier_votes_ += predicate;
  at_barrier_.push_back(static_cast<uint16_t>(t));
  if (at_barrier_.size() == alive_)
    release_block_barrier(t);
  else
    wait();
}

void BlockRunner::release_block_barrier(unsigned self) {
  barrier_result_ = std::exchange(barrier_votes_, 0);
  const void* place = threads_[at_barrier_.front()].place;
  Observer* const o = observer();
  if (o) {
    for (unsigned t : at_barrier_)
      if (threads_[t].place != place) {
        report(Problem::barrier,
               fmt::format("thread {} waits at another barrier than thread {}", t, at_barrier_.front()),
               place, threads_[t].place);
        break;
      }
    if (alive_ < count_)
      report(Problem::barrier, fmt::format("thread {} has returned and counts as arrived", returned_thread()),
             place);
    o->block_synced();
  }
  for (unsigned t : at_barrier_)
    if (t != self) make_ready(t);
  at_barrier_.clear();
}

// The first one.
unsigned BlockRunner::returned_thread() const {
  for (unsigned w = 0; w < warps_.size(); ++w)
    if (const uint32_t returned = warps_[w].gone & warps_[w].there)
      return w * kWarp + static_cast<unsigned>(std::countr_zero(returned));
  return count_;
}

void BlockRunner::named_barrier(unsigned id, unsigned threads, const void* place) {
  const unsigned t = position.linear;
  threads_[t].place = place;
  if (id >= kNamedBarriers || threads == 0 || threads % kWarp != 0) {
    report(Problem::barrier,
           fmt::format("barrier {} for {} threads: ids are below {}, threads whole warps", id, threads,
                       kNamedBarriers),
           place);
    return;
  }
  NamedBarrier& b = named_[id];
  if (b.waiting.empty())
    b.threads = threads;
  else if (b.threads != threads)
    report(Problem::barrier,
           fmt::format("barrier {} for {} threads here, for {} there", id, threads, b.threads), place,
           threads_[b.waiting.front()].place);
  b.waiting.push_back(static_cast<uint16_t>(t));
  if (b.waiting.size() >= b.threads)
    release_named_barrier(b, t);
  else
    wait();
}

void BlockRunner::release_named_barrier(NamedBarrier& b, unsigned self) {
  if (Observer* o = observer()) o->threads_synced(b.waiting);
  for (unsigned t : b.waiting)
    if (t != self) make_ready(t);
  b.waiting.clear();
}

// --- warps ---

bool BlockRunner::all_here(const Warp& w, uint32_t mask, WarpOp op) const {
  const uint32_t named = mask & ~w.gone;
  if ((w.waiting & named) != named) return false;
  for (uint32_t left = named; left; left &= left - 1) {
    const Lane& l = w.lanes[static_cast<unsigned>(std::countr_zero(left))];
    if (l.mask != mask || l.op != op) return false;
  }
  return named != 0;
}

void BlockRunner::warp_operation(WarpOp op, uint32_t mask, void* operand,
                                 void (*act)(const Operands&, const void*), const void* place) {
  const unsigned t = position.linear, lane = t % kWarp;
  Warp& w = warps_[t / kWarp];
  if (!(mask >> lane & 1)) {
    report(Problem::warp, fmt::format("{}: lane {} is not in its own mask {:#010x}", name(op), lane, mask),
           place);
    mask |= 1u << lane;
  }
  w.lanes[lane] = {mask, op, place, operand, act};
  w.waiting |= 1u << lane;
  if (all_here(w, mask, op))
    complete(t / kWarp, mask & ~w.gone, t);
  else
    wait();
}

void BlockRunner::complete(unsigned warp, uint32_t lanes, unsigned self) {
  Warp& w = warps_[warp];
  Operands operands{};
  const Lane& first = w.lanes[static_cast<unsigned>(std::countr_zero(lanes))];
  Observer* const o = observer();
  for (uint32_t left = lanes; left; left &= left - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(left));
    operands[l] = w.lanes[l].operand;
    // Lanes may meet at different __syncwarp, but all else must be one instruction.
    if (o && first.op != WarpOp::barrier && w.lanes[l].place != first.place)
      report(Problem::warp, fmt::format("lanes meet at different places in a {}", name(first.op)),
             first.place, w.lanes[l].place);
    if (warp * kWarp + l != self) make_ready(warp * kWarp + l);
  }
  w.waiting &= ~lanes;
  // Of shuffles and votes CUDA excuses those that have returned; tensor cores want the whole warp.
  const uint32_t missed = first.mask & w.gone & (first.op == WarpOp::barrier ? w.there : ~0u);
  if (o && missed && first.op != WarpOp::shuffle && first.op != WarpOp::ballot)
    report(first.op == WarpOp::barrier ? Problem::barrier : Problem::warp,
           fmt::format("lane {} is not there any more and counts as arrived at a {}",
                       std::countr_zero(missed), name(first.op)),
           first.place);
  if (o) o->warp_synced(warp, lanes);
  if (first.act) first.act(operands, first.place);
}

// All threads wait, and none can go on: says so, and lets those go whose partners are missing.
void BlockRunner::resolve_deadlock() {
  bool found = false;
  for (unsigned w = 0; w < warps_.size(); ++w)
    while (warps_[w].waiting) {
      found = true;
      Warp& warp = warps_[w];
      const Lane& l = warp.lanes[static_cast<unsigned>(std::countr_zero(warp.waiting))];
      uint32_t group = 0;
      for (uint32_t left = warp.waiting & l.mask; left; left &= left - 1) {
        const auto i = static_cast<unsigned>(std::countr_zero(left));
        if (warp.lanes[i].mask == l.mask && warp.lanes[i].op == l.op) group |= 1u << i;
      }
      report(Problem::warp,
             fmt::format("{} with mask {:#010x} in warp {} is reached by lanes {:#010x} only", name(l.op),
                         l.mask, w, group),
             l.place);
      complete(w, group, kNobody);
    }
  if (found) return;
  for (unsigned id = 0; id < kNamedBarriers; ++id)
    if (NamedBarrier& b = named_[id]; !b.waiting.empty()) {
      found = true;
      report(Problem::barrier,
             fmt::format("barrier {} is reached by {} of {} threads", id, b.waiting.size(), b.threads),
             threads_[b.waiting.front()].place);
      release_named_barrier(b, kNobody);
    }
  LOCKSTEP_ASSERT(found, "threads wait, and for nothing");
}

void BlockRunner::report(Problem p, const std::string& what, const void* place, const void* other) {
  if (Observer* o = observer())
    o->problem(p, what, place, other);
  else if (problem_.empty())
    problem_ = fmt::format("{}: {}; block ({}, {}, {}), thread {}", name(p), what, position.block.x,
                           position.block.y, position.block.z, position.linear);
}

}  // namespace lockstep::simt_executor
