// SPDX-License-Identifier: Apache-2.0
// oneDNN's threads are OpenMP's. They spin for milliseconds after each of its primitives, on cores that ours need, or other
// programs. A thousand turns are some microseconds; libgomp asks its environment (GOMP_SPINCOUNT), once, before main(). Where the
// user says something there, it stands.
#pragma once

namespace lockstep {

// In processes that this one starts from now on.
void let_openmp_threads_of_others_sleep();
// In this one, which begins again for it with the same arguments: before it reads what cannot be read again. It goes on as it is
// where it has them already, or cannot.
void let_openmp_threads_sleep();

}  // namespace lockstep
