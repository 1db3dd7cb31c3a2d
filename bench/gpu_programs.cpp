// SPDX-License-Identifier: Apache-2.0
// All that bench/gpu runs on a card, in one program, so that the kernels lie on disk once:
//
//   gpu_programs kernel_tests [...]      the tests of device cuda; takes GoogleTest's options
//   gpu_programs kernel_timings [...]    bench/gpu_kernels.cpp
//   gpu_programs program_timings [...]   bench/program_timings.cpp
//   gpu_programs COMMAND [...]           whatever else: lockstep's own commands
#include <string_view>

#include "bench/gpu_kernels.h"
#include "bench/program.h"
#include "bench/program_timings.h"
#include "launch/commands/command.h"

#ifdef LOCKSTEP_CUDA_TESTS
#include <gtest/gtest.h>
#endif

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "kernel_timings")
    return lockstep::program("kernel_timings", lockstep::time_gpu_kernels, argc - 1, argv + 1);
  if (word == "program_timings")
    return lockstep::program("program_timings", lockstep::time_programs, argc - 1, argv + 1);
#ifdef LOCKSTEP_CUDA_TESTS
  if (word == "kernel_tests") {
    int rest = argc - 1;
    ::testing::InitGoogleTest(&rest, argv + 1);
    return RUN_ALL_TESTS();
  }
#endif
  return lockstep::run_command_line(argc, argv);
}
