// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/simt/executor.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/core/error.h"
#include "kernels/core/thread_team.h"
#include "kernels/gpu/simt/block.h"

namespace lockstep::simt_executor {

constinit thread_local Position position;

namespace {

std::atomic<int> thread_limit{0};
Observer* registered_observer = nullptr;
Observer* watching = nullptr;  // of the launch under way; a watched one has the process to itself

std::string refusal(const Launch& l) {
  const uint64_t threads = uint64_t{l.block.x} * l.block.y * l.block.z;
  if (threads == 0 || threads > kMaxThreads || l.block.z > kMaxBlockZ)
    return fmt::format("a block of {} x {} x {} threads; at most {} in all, {} in z", l.block.x, l.block.y,
                       l.block.z, kMaxThreads, kMaxBlockZ);
  if (l.grid.x > kMaxGridX || l.grid.y > kMaxGridYZ || l.grid.z > kMaxGridYZ)
    return fmt::format("a grid of {} x {} x {} blocks; at most {} in x, {} in y and z", l.grid.x, l.grid.y,
                       l.grid.z, kMaxGridX, kMaxGridYZ);
  if (l.shared_bytes > kMaxDynamicShared)
    return fmt::format("{} bytes of dynamic shared memory; at most {}", l.shared_bytes, kMaxDynamicShared);
  return {};
}

}  // namespace

const char* name(Problem p) {
  switch (p) {
    case Problem::launch_refused:
      return "launch refused";
    case Problem::global_out_of_bounds:
      return "global memory out of bounds";
    case Problem::shared_out_of_bounds:
      return "shared memory out of bounds";
    case Problem::shared_unwritten:
      return "read of shared memory never written";
    case Problem::shared_race:
      return "shared memory race";
    case Problem::global_race:
      return "global memory race between blocks";
    case Problem::barrier:
      return "barrier not reached by all";
    case Problem::warp:
      return "warp operation not reached by all named lanes";
    case Problem::misaligned:
      return "misaligned access";
    case Problem::async_copy:
      return "cp_async still under way";
  }
  return "?";
}

void set_threads(int n) { thread_limit = n; }
void set_observer(Observer* o) { registered_observer = o; }
Observer* observer() { return watching; }
Observer* any_observer() { return registered_observer; }

void run(const Launch& launch) {
  if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0) return;
  if (launch.watched) LOCKSTEP_ASSERT(registered_observer != nullptr, "a watched kernel without the watch");
  watching = launch.watched ? registered_observer : nullptr;
  if (watching) watching->launch_begins(launch);
  std::string first_problem = refusal(launch);
  if (!first_problem.empty()) {
    if (watching) {
      watching->problem(Problem::launch_refused, first_problem, launch.kernel, nullptr);
      watching->launch_ends();
      watching = nullptr;
      return;
    }
  } else {
    const int64_t blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    const int most =
        thread_limit > 0 ? thread_limit.load() : static_cast<int>(std::thread::hardware_concurrency());
    // One after the other under the watch, whose memory of the launch is one.
    const int threads = watching ? 1 : static_cast<int>(std::min<int64_t>(most, blocks));
    const int64_t chunk = std::max<int64_t>(1, blocks / (int64_t{threads} * 16));
    std::atomic<int64_t> next{0};
    std::exception_ptr failure;
    std::mutex problems;
    on_threads(threads, [&](int, int) {
      try {
        BlockRunner& runner = BlockRunner::of_this_thread();
        runner.begin(launch);
        for (int64_t first; (first = next.fetch_add(chunk)) < blocks;)
          for (int64_t b = first; b < std::min(first + chunk, blocks); ++b) runner.run(b);
        if (const std::string p = runner.take_problem(); !p.empty()) {
          const std::lock_guard lock(problems);
          first_problem = p;
        }
      } catch (...) {
        const std::lock_guard lock(problems);
        failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }
  if (watching) watching->launch_ends();
  watching = nullptr;
  if (!first_problem.empty()) throw Error(Exit::internal, "E_SIMT", first_problem);
}

}  // namespace lockstep::simt_executor
