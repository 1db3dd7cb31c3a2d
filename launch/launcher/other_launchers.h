// SPDX-License-Identifier: Apache-2.0
// Launchers that start processes which do not know of each other.
#pragma once

#include <string>

namespace lockstep {

// Before MPI is started, which would end the process with words of its own, or each process would train by itself. `program`:
// what each of them runs, for the hint. Errors: unavailable (69) for a step of Slurm's without PMIx; config (78) for
// torchrun and what sets its variables.
void require_usable_launcher(const std::string& command);

}  // namespace lockstep
