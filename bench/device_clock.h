// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "runtime/device/device_runtime.h"

namespace lockstep {

// Seconds that work put on the device's stream takes there: a GPU's by its own events, the host's by its clock.
// `before` is put there first and not counted: while the device is busy with it, what launching takes is hidden.
double seconds_on(DeviceRuntime& device, const std::function<void()>& before,
                  const std::function<void()>& work);

}  // namespace lockstep
