// SPDX-License-Identifier: Apache-2.0
// Times of a whole pipeline's programs (program_timings.cpp says what it takes and prints). Errors: as Error.
#pragma once

namespace lockstep {

int time_programs(int argc, char** argv);

}  // namespace lockstep
