// SPDX-License-Identifier: Apache-2.0
// The threads that share the parts of a loop. Whoever runs loops has a team of its own, which grows to the most threads that a
// loop asked for and ends with its owner. Between loops its threads spin, so that the next loop begins within a microsecond:
// for 5 ms while the cores are theirs alone, for 50 microseconds while other threads want them too (contention.h). Then they
// sleep.
#pragma once

#include <memory>
#include <type_traits>

namespace lockstep {

namespace thread_team {
using Part = void (*)(void* loop, int index, int count);
void run(int threads, Part part, void* loop);
}  // namespace thread_team

// part(index, count) once for each index in [0, count), index 0 on the calling thread, the others at the same time; returns when
// all have. count is `threads`, less where the system starts no more of them, and 1 within a part of several. part does not throw.
template <class F>
void on_threads(int threads, F&& part) {
  thread_team::run(
      threads,
      [](void* loop, int index, int count) {
        (*static_cast<std::remove_reference_t<F>*>(loop))(index, count);
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(part))));
}

// The index of the part that the calling thread is in; 0 outside.
int thread_index();

// The calling thread's team sleeps until its next loop: another library's threads need the cores.
void let_threads_sleep();

}  // namespace lockstep
