// SPDX-License-Identifier: Apache-2.0
// The kernels' timings on the models' shapes (gpu_kernels.cpp says what it takes and prints). Errors: as Error.
#pragma once

namespace lockstep {

int time_gpu_kernels(int argc, char** argv);

}  // namespace lockstep
