// SPDX-License-Identifier: Apache-2.0
// A diffusers folder's config.json, and scheduler_config.json with the schedule that it describes.
#include "launch/job/net_config.h"
#include "models/diffusion/schedule.h"
#include "models/diffusion/scheduler_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockstep;
  const fuzz::MemoryFile file(data, size);
  fuzz::reads([&] { read_unet_config(file.path()); });
  return fuzz::reads(
      [&] { diffusion::training_objective(diffusion::read_scheduler_config(file.path()).config.schedule); });
}
